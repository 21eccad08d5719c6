//! LDK's log lines in ours.

use lightning::util::logger::{Level, Logger, Record};

/// Passes LDK's records to `tracing`, under the target `ldk`. What LDK calls information is several lines a payment, of
/// use to those who debug; the node says itself what operators should know.
#[derive(Default)]
pub struct TracingLogger;

impl Logger for TracingLogger {
    fn log(&self, record: Record) {
        let channel = record.channel_id.map(|id| id.to_string());
        let peer = record.peer_id.map(|id| id.to_string());
        macro_rules! emit {
            ($level:ident) => {
                tracing::event!(
                    target: "ldk",
                    tracing::Level::$level,
                    module = record.module_path,
                    channel,
                    peer,
                    "{}",
                    record.args
                )
            };
        }
        match record.level {
            Level::Gossip | Level::Trace => emit!(TRACE),
            Level::Debug | Level::Info => emit!(DEBUG),
            Level::Warn => emit!(WARN),
            Level::Error => emit!(ERROR),
        }
    }
}
