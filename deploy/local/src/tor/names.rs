//! The names that the exits know: a small DNS server of their own.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::Result;
use tokio::{net::UdpSocket, task::JoinHandle};

/// RFC 6761 keeps it free of real names.
pub const DOMAIN: &str = "holdfast.test";

#[derive(Debug)]
pub struct Names {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
    serving: JoinHandle<()>,
}

impl Names {
    pub async fn start() -> Result<Self> {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = socket.local_addr()?;
        let asked = Arc::<Mutex<Vec<String>>>::default();
        let written = asked.clone();
        let serving = tokio::spawn(async move {
            let mut query = [0; 512];
            // What cannot be answered is asked again.
            while let Ok((length, from)) = socket.recv_from(&mut query).await {
                if let Some((name, reply)) = answer(&query[..length]) {
                    written.lock().unwrap_or_else(PoisonError::into_inner).push(name);
                    let _ = socket.send_to(&reply, from).await;
                }
            }
        });
        Ok(Self { address, asked, serving })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn asked_for(&self) -> Vec<String> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Names {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// The name that is asked for, in small letters, and the answer (RFC 1035): this machine for what is ours, and else that there
/// is no such name. The question is repeated as it came, because Tor plays with its letters and looks whether they come back.
fn answer(query: &[u8]) -> Option<(String, Vec<u8>)> {
    const HEADER: usize = 12;
    let mut labels = Vec::new();
    let mut at = HEADER;
    loop {
        let length = usize::from(*query.get(at)?);
        at += 1;
        if length == 0 {
            break;
        }
        labels.push(String::from_utf8_lossy(query.get(at..at + length)?).to_ascii_lowercase());
        at += length;
    }
    let name = labels.join(".");
    let kind = query.get(at..at + 2)?;
    let question = query.get(HEADER..at + 4)?;
    let is_ours = name == DOMAIN || name.ends_with(&format!(".{DOMAIN}"));
    let has_address = is_ours && kind == [0, 1];
    let mut reply = query.get(..2)?.to_vec();
    // An answer with authority, and either no error or no such name; one question.
    reply.extend([0x84, if is_ours { 0 } else { 3 }, 0, 1, 0, has_address.into(), 0, 0, 0, 0]);
    reply.extend(question);
    if has_address {
        // The name in the question, an address, of the Internet, for a minute.
        reply.extend([0xc0, HEADER as u8, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
        reply.extend(Ipv4Addr::LOCALHOST.octets());
    }
    Some((name, reply))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_names_are_this_machine_and_others_are_none() {
        let query = |name: &str, kind: u8| {
            let mut query = vec![7, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
            for label in name.split('.') {
                query.push(label.len() as u8);
                query.extend(label.bytes());
            }
            query.extend([0, 0, kind, 0, 1]);
            query
        };
        let (name, reply) = answer(&query("Bob.HOLDFAST.test", 1)).unwrap();
        assert_eq!(name, "bob.holdfast.test");
        assert_eq!(reply[..8], [7, 7, 0x84, 0, 0, 1, 0, 1]);
        assert!(reply.windows(3).any(|part| part == b"Bob"));
        assert!(reply.ends_with(&[0, 4, 127, 0, 0, 1]));
        assert_eq!(answer(&query("bob.holdfast.test", 28)).unwrap().1[3..8], [0, 0, 1, 0, 0]);
        assert_eq!(answer(&query("example.com", 1)).unwrap().1[3], 3);
        assert_eq!(answer(&query("notholdfast.test", 1)).unwrap().1[3], 3);
        assert!(answer(&[7; 14]).is_none() && answer(&[]).is_none());
    }
}
