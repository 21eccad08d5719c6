//! The replicas as a client sees them: asks each who leads, and goes there.

use std::{
    collections::{HashSet, VecDeque},
    time::Duration,
};

use holdfast_proto::{
    error::Error,
    identity::Role,
    node::v1::{GetLeaderRequest, GetLeaderResponse, node_client::NodeClient},
    tls::{self, ConnectError},
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
}

/// One replica's answer, or why there is none.
#[derive(Debug)]
pub(super) struct Seen {
    pub endpoint: String,
    pub answer: Result<Answer, String>,
}

#[derive(Debug)]
pub(super) struct Answer {
    pub client: Client,
    pub leader: GetLeaderResponse,
}

/// What a call is to the node, and so what may be done when its answer is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Call {
    /// Changes nothing, or only once however often it is asked for: may simply be repeated.
    Reads,
    /// Repeated only if the replica said that nothing was done.
    Acts,
}

impl Cluster {
    pub fn new(settings: Settings) -> Self {
        Self { settings }
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
                    match call(client).await {
                        Ok(answer) => return Ok(answer.into_inner()),
                        Err(status) => {
                            let failure = Failure::of_call(&status, &endpoint, kind == Call::Acts);
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
            if Instant::now() >= patience_ends {
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
                match call(answer.client.clone()).await {
                    Ok(answer) => return Ok(answer.into_inner()),
                    Err(status) => failure = failure.or(Some(Failure::of_call(&status, endpoint, false))),
                }
            }
        }
        seen.reverse();
        Err(failure.unwrap_or_else(|| no_leader(&seen)))
    }

    /// The outer error is one that no other replica would do better at: our own certificate was refused.
    async fn ask(&self, endpoint: &str) -> Result<Result<Answer, String>, Failure> {
        let given_up = |error: ConnectError| match Failure::of_certificates(&error) {
            Some(failure) => Err(failure),
            None => Ok(Err(error.why.to_string())),
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
            Err(_) => return Ok(Err(format!("no answer within {ASK_WITHIN:?}"))),
        };
        if let Some(error) = ConnectError::in_chain(&status) {
            return given_up(ConnectError { endpoint: endpoint.to_owned(), ..error });
        }
        let failure = Failure::of_call(&status, endpoint, false);
        if failure.exit == Exit::NoPermission { Err(failure) } else { Ok(Err(failure.message)) }
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
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(200);

/// A typed `Unavailable` says that nothing was decided. Without a type the connection was cut, and anything may be true.
fn may_repeat(status: &Status, kind: Call) -> bool {
    let undecided = matches!(Error::from(status.clone()), Error::Unavailable { .. } | Error::StaleTerm { .. });
    undecided && (kind == Call::Reads || !status.details().is_empty())
}

fn no_leader(seen: &[Seen]) -> Failure {
    let answered = seen.iter().any(|seen| seen.answer.is_ok());
    let mut message = if answered { "no replica leads" } else { "no replica answers" }.to_owned();
    for Seen { endpoint, answer } in seen {
        let said = match answer {
            Ok(Answer { leader, .. }) if leader.leader.is_empty() => "stands by, and knows of no leader".to_owned(),
            Ok(Answer { leader, .. }) => format!("stands by, and says that {} leads", leader.leader),
            Err(why) => why.clone(),
        };
        message += &format!("\n  {endpoint}: {said}");
    }
    Failure::new(Exit::Unavailable, message).hint(if answered {
        "a takeover needs Postgres and a signer: /readyz of each replica says what is away"
    } else {
        "are the replicas running, and are these their API addresses?"
    })
}
