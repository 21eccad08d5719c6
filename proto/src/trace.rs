//! How one operator's call is followed from process to process.

/// The target of spans that are parts of traces. Nothing but the exporter of traces looks at it, so that without one they
/// cost nothing.
pub const TARGET: &str = "holdfast::trace";

/// The metadata key that a trace travels under (W3C Trace Context).
pub const TRACEPARENT: &str = "traceparent";

/// A call that carries `traceparent`, if there is one and it can be carried.
pub fn request<T>(message: T, traceparent: Option<&str>) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    if let Some(value) = traceparent.and_then(|text| text.parse().ok()) {
        request.metadata_mut().insert(TRACEPARENT, value);
    }
    request
}

/// What the caller's trace is, if it sent one.
pub fn parent<T>(request: &tonic::Request<T>) -> Option<&str> {
    request.metadata().get(TRACEPARENT)?.to_str().ok()
}
