//! What stands before moto: it writes down every call, and answers in moto's place as AWS answers when something is wrong.

use std::{
    io,
    net::TcpListener,
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::State,
    http::{HeaderMap, Method, Uri},
    response::Response,
};
use serde_json::Value;
use tokio::runtime::Runtime;

use crate::http;

/// What happens to a call instead of reaching moto.
#[derive(Clone, Debug)]
pub enum Fault {
    /// An error as AWS gives it.
    Answer { status: u16, code: &'static str, message: &'static str },
    /// No answer, ever.
    Silence,
    /// The connection ends in the middle of the answer.
    CutOff,
    /// Moto's answer, in which the named field is another.
    Changed { field: &'static str, value: &'static str },
}

/// A call as it came.
#[derive(Clone, Debug)]
pub struct Call {
    /// `Decrypt`, `GetSecretValue`, `AssumeRoleWithWebIdentity`..
    pub name: String,
    pub body: Value,
    /// The access key id that signed it.
    pub signer: Option<String>,
}

pub struct Proxy {
    pub port: u16,
    shared: Arc<Shared>,
    // Ends the server with it.
    _runtime: Runtime,
}

struct Shared {
    moto: u16,
    calls: Mutex<Vec<Call>>,
    fault: Mutex<Option<Planned>>,
}

struct Planned {
    fault: Fault,
    times: usize,
    /// None means any.
    call: Option<&'static str>,
}

impl Proxy {
    pub fn start(port: u16, moto: u16) -> Self {
        let shared = Arc::new(Shared { moto, calls: Mutex::default(), fault: Mutex::default() });
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let router = Router::new().fallback(handle).with_state(shared.clone());
        runtime.spawn(async move {
            axum::serve(tokio::net::TcpListener::from_std(listener).unwrap(), router).await.unwrap();
        });
        Self { port, shared, _runtime: runtime }
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The next `times` calls fare like this; those after them reach moto again.
    pub fn fail(&self, times: usize, fault: Fault) {
        *self.shared.fault.lock().unwrap() = Some(Planned { fault, times, call: None });
    }

    /// Every call of this name, and no other.
    pub fn fail_call(&self, call: &'static str, fault: Fault) {
        *self.shared.fault.lock().unwrap() = Some(Planned { fault, times: usize::MAX, call: Some(call) });
    }

    pub fn fail_always(&self, fault: Fault) {
        self.fail(usize::MAX, fault);
    }

    pub fn heal(&self) {
        *self.shared.fault.lock().unwrap() = None;
    }

    /// The calls since this was asked last.
    pub fn calls(&self) -> Vec<Call> {
        std::mem::take(&mut self.shared.calls.lock().unwrap())
    }

    pub fn names(&self) -> Vec<String> {
        self.calls().into_iter().map(|call| call.name).collect()
    }
}

async fn handle(
    State(shared): State<Arc<Shared>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let call = call(&headers, &body);
    let fault = shared.next_fault(&call.name);
    shared.calls.lock().unwrap().push(call);
    match fault {
        None => forward(shared.moto, method, uri, headers, body, None).await,
        Some(Fault::Changed { field, value }) => {
            forward(shared.moto, method, uri, headers, body, Some((field, value))).await
        }
        Some(Fault::Silence) => std::future::pending().await,
        Some(Fault::CutOff) => {
            let pieces = [Ok("{\"Plaintext\":"), Err(io::Error::other("cut off"))];
            Response::new(Body::from_stream(tokio_stream::iter(pieces)))
        }
        Some(Fault::Answer { status, code, message }) => {
            let body = serde_json::json!({ "__type": code, "message": message }).to_string();
            let answer = Response::builder().status(status).header("content-type", "application/x-amz-json-1.1");
            answer.body(body.into()).unwrap()
        }
    }
}

impl Shared {
    fn next_fault(&self, call: &str) -> Option<Fault> {
        let mut slot = self.fault.lock().unwrap();
        let planned = slot.as_mut().filter(|planned| planned.call.is_none_or(|name| name == call))?;
        let fault = planned.fault.clone();
        planned.times -= 1;
        if planned.times == 0 {
            *slot = None;
        }
        Some(fault)
    }
}

fn call(headers: &HeaderMap, body: &[u8]) -> Call {
    let text = String::from_utf8_lossy(body);
    let target = headers.get("x-amz-target").and_then(|target| target.to_str().unwrap().split('.').nth(1));
    let action = || text.split('&').find_map(|pair| pair.strip_prefix("Action="));
    let authorization = headers.get("authorization").map(|value| value.to_str().unwrap().to_owned());
    let signer = authorization.and_then(|text| {
        let (_, credential) = text.split_once("Credential=")?;
        Some(credential.split('/').next()?.to_owned())
    });
    Call {
        name: target.or_else(action).unwrap_or("?").to_owned(),
        body: serde_json::from_str(&text).unwrap_or(Value::Null),
        signer,
    }
}

async fn forward(
    moto: u16,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
    change: Option<(&'static str, &'static str)>,
) -> Response {
    let kept = headers.iter().filter(|(name, _)| !["connection", "content-length"].contains(&name.as_str()));
    let headers: Vec<_> = kept.map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned())).collect();
    let path = uri.to_string();
    let sent = tokio::task::spawn_blocking(move || http::exchange(moto, method.as_str(), &path, &headers, &body));
    let mut answer = sent.await.unwrap().unwrap();
    if let Some((field, value)) = change {
        let mut json: Value = serde_json::from_slice(&answer.body).unwrap();
        json[field] = value.into();
        answer.body = json.to_string().into_bytes();
    }
    let mut response = Response::builder().status(answer.status);
    for (name, value) in &answer.headers {
        if !["connection", "content-length", "transfer-encoding"].contains(&name.as_str()) {
            response = response.header(name, value);
        }
    }
    response.body(answer.body.into()).unwrap()
}
