//! What the log has of those who do not get in.

use std::sync::atomic::{AtomicUsize, Ordering};

use tracing::{Event, Level, Metadata, Subscriber, span};

use super::*;

#[tokio::test]
async fn a_scanner_is_one_line_however_often_it_knocks() {
    let warnings = Warnings::default();
    let _logged = tracing::subscriber::set_default(warnings.clone());
    let ca = Ca::new("d");
    let server = Echo::start(ca.leaf(&["spiffe://d/signer/s"])).await;
    for _ in 0..20 {
        let mut tcp = TcpStream::connect(&server.endpoint).await.unwrap();
        tcp.write_all(b"GET / HTTP/1.0\r\n\r\n").await.unwrap();
        // Until the server has had enough; it may say so in TLS, or cut the connection.
        let _ = tcp.read_to_end(&mut Vec::new()).await;
    }
    assert_eq!(warnings.0.load(Ordering::Relaxed), 1);
}

/// Counts the lines that an operator is meant to see.
#[derive(Clone, Default)]
struct Warnings(Arc<AtomicUsize>);

impl Subscriber for Warnings {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= Level::WARN
    }

    fn event(&self, _: &Event<'_>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}
