//! The replicas as a client sees them: asks each who leads, and goes there.

use std::{
    collections::{HashSet, VecDeque},
    fmt,
    io::{self, Write},
    pin::pin,
    time::Duration,
};

use holdfast_proto::{
    error::Error,
    identity::Role,
    node::v1::{GetLeaderRequest, GetLeaderResponse, node_client::NodeClient},
    tls::{self, ConnectError, ConnectFailure},
};
use tokio::time::{Instant, sleep, timeout};
use tonic::{Response, Status, transport::Channel};

use super::{
    failure::{Exit, Failure},
    settings::Settings,
};

pub(super) type Client = NodeClient<Channel>;

#[derive(Debug)]
pub(super) struct Cluster {
    settings: Settings,
    /// Whether people are told on stderr that an answer takes its time.
    notes: bool,
}

/// One replica's answer, or why there is none.
#[derive(Debug)]
pub(super) struct Seen {
    pub endpoint: String,
    pub answer: Result<Answer, NoLeader>,
}

/// Why a replica does not say who leads.
#[derive(Debug)]
pub(super) enum NoLeader {
    /// Nobody is there, or nobody answers.
    Unreached(String),
    /// It is there, and this is what it answered, or what is wrong with the two of us.
    Said(Failure),
}

impl fmt::Display for NoLeader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreached(why) => f.write_str(why),
            Self::Said(failure) => f.write_str(&failure.message),
        }
    }
}

#[derive(Debug)]
pub(super) struct Answer {
    pub client: Client,
    pub leader: GetLeaderResponse,
}

/// What a call is to the node, and so what may be done when its answer is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Call {
    /// Changes nothing, and is soon done: is repeated, and given up on when patience ends.
    Looks,
    /// Changes nothing, or only once however often it is asked for: may simply be repeated. May take its time.
    Reads,
    /// Makes what does no harm when nobody uses it, as an address or an invoice: repeated only if the replica said that
    /// nothing was done, but given up on when patience ends.
    Makes,
    /// Repeated only if the replica said that nothing was done, and never given up on: who does not wait for the answer
    /// does not know whether it was done.
    Acts,
}

impl Call {
    fn may_be_repeated(self) -> bool {
        matches!(self, Self::Looks | Self::Reads)
    }

    fn may_be_given_up(self) -> bool {
        matches!(self, Self::Looks | Self::Makes)
    }
}

impl Cluster {
    pub fn new(settings: Settings, notes: bool) -> Self {
        Self { settings, notes }
    }

    /// Asks every replica that is configured, and the leader that they name, once. Ends early at the leader if `only_leader`.
    pub async fn look(&self, only_leader: bool) -> Result<Vec<Seen>, Failure> {
        let mut seen: Vec<Seen> = Vec::new();
        let mut ahead: VecDeque<String> = self.settings.endpoints.iter().map(ToString::to_string).collect();
        let mut asked = HashSet::new();
        while let Some(endpoint) = ahead.pop_front() {
            if !asked.insert(endpoint.clone()) {
                continue;
            }
            let answer = self.ask(&endpoint).await?;
            let found = answer.as_ref().is_ok_and(|answer| answer.leader.is_this_replica);
            if let Ok(Answer { leader, .. }) = &answer
                && !found
                && !leader.api_address.is_empty()
            {
                ahead.push_front(leader.api_address.clone());
            }
            seen.push(Seen { endpoint, answer });
            if found && only_leader {
                break;
            }
        }
        Ok(seen)
    }

    /// Does `call` on the leader. Looks for one, and tries again when told that nothing was done, until patience ends.
    pub async fn on_leader<A>(
        &self,
        kind: Call,
        call: impl AsyncFn(Client) -> Result<Response<A>, Status>,
    ) -> Result<A, Failure> {
        let patience_ends = Instant::now() + self.settings.patience;
        loop {
            let mut seen = self.look(true).await?;
            let failure = match seen.pop() {
                Some(Seen { endpoint, answer: Ok(Answer { client, leader }) }) if leader.is_this_replica => {
                    match self.patiently(kind, &endpoint, call(client)).await? {
                        Ok(answer) => return Ok(answer.into_inner()),
                        Err(status) => {
                            let failure = Failure::of_call(&status, &endpoint, !kind.may_be_repeated());
                            if !may_repeat(&status, kind) {
                                return Err(failure);
                            }
                            failure
                        }
                    }
                }
                last => {
                    seen.extend(last);
                    no_leader(&seen)
                }
            };
            // What is wrong with a certificate does not mend itself.
            if failure.exit == Exit::Config || Instant::now() >= patience_ends {
                return Err(failure);
            }
            sleep(LOOK_AGAIN_AFTER).await;
        }
    }

    /// Does `call` on the leader if one is found at once, else on any replica that answers.
    pub async fn on_any<A>(&self, call: impl AsyncFn(Client) -> Result<Response<A>, Status>) -> Result<A, Failure> {
        let mut seen = self.look(true).await?;
        // The leader, if there is one, was seen last.
        seen.reverse();
        let mut failure = None;
        for Seen { endpoint, answer } in &seen {
            if let Ok(answer) = answer {
                match self.patiently(Call::Looks, endpoint, call(answer.client.clone())).await? {
                    Ok(answer) => return Ok(answer.into_inner()),
                    Err(status) => failure = failure.or(Some(Failure::of_call(&status, endpoint, false))),
                }
            }
        }
        seen.reverse();
        Err(failure.unwrap_or_else(|| no_leader(&seen)))
    }

    /// Waits for the answer of a call that was sent, says so after a while, and gives up on those that may be given up on.
    async fn patiently<A>(&self, kind: Call, endpoint: &str, answer: impl Future<Output = A>) -> Result<A, Failure> {
        let mut answer = pin!(answer);
        let patience = self.settings.patience;
        let gives_up = async {
            if !kind.may_be_given_up() {
                std::future::pending::<()>().await;
            }
            sleep(patience).await;
        };
        let mut gives_up = pin!(gives_up);
        let mut tell = pin!(sleep(TELL_AFTER));
        let mut told = !self.notes;
        loop {
            tokio::select! {
                answer = &mut answer => return Ok(answer),
                () = &mut gives_up => return Err(given_up(kind, endpoint, patience)),
                () = &mut tell, if !told => {
                    told = true;
                    // Nowhere is left to report that this cannot be written.
                    let _ = writeln!(io::stderr(), "{}", still_waiting(kind, endpoint));
                }
            }
        }
    }

    /// The outer error is one that no other replica would do better at: our own certificate was refused.
    async fn ask(&self, endpoint: &str) -> Result<Result<Answer, NoLeader>, Failure> {
        let given_up = |error: ConnectError| match Failure::of_certificates(&error) {
            Some(failure) if matches!(error.why, ConnectFailure::OurCertificate(_)) => Err(failure),
            Some(failure) => Ok(Err(NoLeader::Said(failure))),
            None => Ok(Err(NoLeader::Unreached(error.why.to_string()))),
        };
        let credentials = &self.settings.credentials;
        let channel = match tls::reach(endpoint, credentials, Role::Replica, ASK_WITHIN).await {
            Ok(channel) => channel,
            Err(error) => return given_up(error),
        };
        let mut client = NodeClient::new(channel);
        let status = match timeout(ASK_WITHIN, client.get_leader(GetLeaderRequest {})).await {
            Ok(Ok(leader)) => return Ok(Ok(Answer { client, leader: leader.into_inner() })),
            Ok(Err(status)) => status,
            Err(_) => return Ok(Err(NoLeader::Unreached(format!("no answer within {ASK_WITHIN:?}")))),
        };
        if let Some(error) = ConnectError::in_chain(&status) {
            return given_up(ConnectError { endpoint: endpoint.to_owned(), ..error });
        }
        let failure = Failure::of_call(&status, endpoint, false);
        Ok(Err(match failure.exit {
            Exit::NoPermission => return Err(failure),
            // Its answer was lost on the way.
            Exit::Unavailable if status.details().is_empty() => NoLeader::Unreached(failure.message),
            _ => NoLeader::Said(failure),
        }))
    }
}

/// All items of a list that comes in pages: `page` gets the place to go on from, and gives the items and the next place.
pub(super) async fn pages<T>(
    page: impl AsyncFn(String) -> Result<(Vec<T>, String), Failure>,
) -> Result<Vec<T>, Failure> {
    let (mut all, mut after) = (Vec::new(), String::new());
    loop {
        let (items, next) = page(after).await?;
        all.extend(items);
        if next.is_empty() {
            return Ok(all);
        }
        after = next;
    }
}

/// For one replica to say who leads.
const ASK_WITHIN: Duration = Duration::from_secs(3);
/// For an answer, before people are told that we wait.
const TELL_AFTER: Duration = Duration::from_secs(2);
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(200);

/// A typed `Unavailable` says that nothing was decided. Without a type the connection was cut, and anything may be true.
fn may_repeat(status: &Status, kind: Call) -> bool {
    let undecided = matches!(Error::from(status.clone()), Error::Unavailable { .. } | Error::StaleTerm { .. });
    undecided && (kind.may_be_repeated() || !status.details().is_empty())
}

fn still_waiting(kind: Call, endpoint: &str) -> String {
    let told = format!("still waiting for replica {endpoint}, which has not answered for {TELL_AFTER:?}");
    match kind {
        Call::Looks | Call::Reads => told,
        Call::Makes | Call::Acts => {
            format!(
                "{told}; the call may have been carried out: see `holdfast payments`, `channels` before you repeat it"
            )
        }
    }
}

fn given_up(kind: Call, endpoint: &str, patience: Duration) -> Failure {
    let failure = Failure::new(Exit::TryAgain, format!("replica {endpoint} has not answered within {patience:?}"));
    failure.hint(match kind {
        Call::Makes | Call::Acts => {
            "it may have been made all the same; nothing is lost by making another (--timeout: how long to wait)"
        }
        Call::Looks | Call::Reads => "/readyz of the replica says what is away (--timeout: how long to wait)",
    })
}

/// Why nobody of those that were asked leads. An answer that is an error is more than that.
pub(super) fn no_leader(seen: &[Seen]) -> Failure {
    let stands_by = seen.iter().any(|seen| seen.answer.is_ok());
    let mut answers = seen.iter().filter_map(|seen| match &seen.answer {
        Err(NoLeader::Said(failure)) => Some(failure),
        _ => None,
    });
    // All that are there stand before the same fault, as a rule: it is told once.
    if !stands_by && let Some(first) = answers.next() {
        return first.clone();
    }
    let mut message = if stands_by { "no replica leads" } else { "no replica answers" }.to_owned();
    for Seen { endpoint, answer } in seen {
        let said = match answer {
            Ok(Answer { leader, .. }) if leader.leader.is_empty() => "stands by, and knows of no leader".to_owned(),
            Ok(Answer { leader, .. }) => format!("stands by, and says that {} leads", leader.leader),
            Err(why) => why.to_string(),
        };
        message += &format!("\n  {endpoint}: {said}");
    }
    Failure::new(Exit::Unavailable, message).hint(if stands_by {
        "a takeover needs Postgres and a signer: /readyz of each replica says what is away"
    } else {
        "are the replicas running, and are these their API addresses?"
    })
}
