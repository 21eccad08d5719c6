//! A commit as a part of the traces of those who wait for it.

use holdfast_proto::trace::TARGET;
use tracing::{Span, info_span};

/// The span of a commit that carries what was changed in `waiting`. It belongs to the first of them, for a span has one
/// parent; the others link to it. Nobody waits: nobody follows.
pub(super) fn commit(waiting: &[Span]) -> Span {
    let Some((first, others)) = waiting.split_first() else { return Span::none() };
    let span = info_span!(target: TARGET, parent: first, "commit", calls = waiting.len());
    for other in others {
        span.follows_from(other);
    }
    span
}

/// The part of a commit that the database takes.
pub(super) fn write(commit: &Span) -> Span {
    match commit.is_none() {
        true => Span::none(),
        false => info_span!(target: TARGET, parent: commit, "postgres", otel.kind = "client"),
    }
}
