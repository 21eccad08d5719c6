//! A wire between a client and the server that can be cut at the worst moment.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

pub struct Proxy {
    pub port: u16,
    cut_next_answer: Arc<AtomicBool>,
}

impl Proxy {
    pub async fn to(server: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let cut_next_answer = Arc::new(AtomicBool::new(false));
        let flag = cut_next_answer.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                if let Ok(server) = TcpStream::connect(("127.0.0.1", server)).await {
                    tokio::spawn(relay(client, server, flag.clone()));
                }
            }
        });
        Self { port, cut_next_answer }
    }

    /// The next thing that the server says on any connection is lost, and that connection with it.
    pub fn cut_next_answer(&self) {
        self.cut_next_answer.store(true, Ordering::SeqCst);
    }

    pub fn has_cut(&self) -> bool {
        !self.cut_next_answer.load(Ordering::SeqCst)
    }
}

async fn relay(client: TcpStream, server: TcpStream, cut: Arc<AtomicBool>) {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let asking = tokio::spawn(async move { tokio::io::copy(&mut from_client, &mut to_server).await });
    let mut buffer = vec![0; 65536];
    while let Ok(length @ 1..) = from_server.read(&mut buffer).await {
        if cut.swap(false, Ordering::SeqCst) || to_client.write_all(&buffer[..length]).await.is_err() {
            break;
        }
    }
    asking.abort();
}
