//! The stream of what happens: from a cursor on, in order, for as long as somebody listens.

use std::{
    collections::{HashMap, HashSet},
    convert::Infallible,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use holdfast_proto::{
    error::Error,
    node::v1::{self, EventTopic},
};
use tokio::{
    sync::{mpsc, watch},
    time::sleep,
};
use tokio_stream::{Stream, wrappers::ReceiverStream};
use tonic::Status;

/// The log of events, as any replica reads it.
#[async_trait]
pub trait EventSource: Send + Sync + 'static {
    /// The newest event's sequence, 0 if there was none yet. Cheap: may be as old as [`EventSource::LOOK`].
    async fn newest(&self) -> Result<u64, Error>;

    /// At most `limit` events after `after`, in order.
    async fn page(&self, after: u64, limit: u32) -> Result<EventPage, Error>;
}

/// How long what is new may wait before it is seen.
pub const LOOK: Duration = Duration::from_millis(100);

/// A piece of the log, and where the whole of it begins and ends.
#[derive(Clone, Debug, Default)]
pub struct EventPage {
    /// The newest event that was removed for its age; 0 if none was.
    pub pruned_through: u64,
    pub newest: u64,
    pub events: Vec<v1::Event>,
}

pub(super) type EventStream = Pin<Box<dyn Stream<Item = Result<v1::WatchEventsResponse, Status>> + Send>>;

/// Streams that a replica serves at once.
const WATCHERS: usize = 128;
/// Of those, the streams of one operator: nobody keeps all others out.
const OF_ONE: usize = 32;
/// Events read at once.
const PAGE: u32 = 200;
/// So that the caller's certificate and role are looked at again.
const LIFE: Duration = Duration::from_secs(3600);

/// Who has how many streams open.
#[derive(Clone, Default)]
pub(super) struct Places(Arc<Mutex<HashMap<String, usize>>>);

/// One stream's place, until it is dropped.
pub(super) struct Place {
    places: Places,
    name: String,
}

impl Places {
    pub(super) fn take(&self, name: &str) -> Result<Place, Error> {
        let mut taken = self.lock();
        if taken.values().sum::<usize>() >= WATCHERS {
            return Err(Error::unavailable(format!("{WATCHERS} streams are open here already")));
        }
        let of_one = taken.entry(name.to_owned()).or_default();
        if *of_one >= OF_ONE {
            return Err(Error::unavailable(format!("{OF_ONE} streams of operator {name} are open here already")));
        }
        *of_one += 1;
        Ok(Place { places: self.clone(), name: name.to_owned() })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, usize>> {
        // Each change is complete in itself.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.lock();
        if let Some(of_one) = taken.get_mut(&self.name) {
            *of_one -= 1;
            taken.retain(|_, of_one| *of_one > 0);
        }
    }
}

/// Opens a stream. `stopping` ends it, and so does its hour; the caller goes on from its cursor, here or elsewhere.
pub(super) async fn watch(
    source: Arc<dyn EventSource>,
    request: v1::WatchEventsRequest,
    stopping: watch::Receiver<()>,
    place: Place,
) -> Result<EventStream, Error> {
    let topics = topics(&request)?;
    let cursor = begin(&request, &source.page(0, 0).await?)?;
    let (sender, receiver) = mpsc::channel(64);
    tokio::spawn(serve(Watcher { source, topics, sender, _place: place }, cursor, stopping));
    Ok(Box::pin(ReceiverStream::new(receiver)))
}

fn topics(request: &v1::WatchEventsRequest) -> Result<Option<HashSet<EventTopic>>, Error> {
    let topic = |topic: EventTopic| match topic {
        EventTopic::Unspecified => Err(Error::misuse("topics", "holds one that this replica does not know")),
        topic => Ok(topic),
    };
    let topics: HashSet<_> = request.topics().map(topic).collect::<Result<_, _>>()?;
    Ok((!topics.is_empty()).then_some(topics))
}

/// The cursor to begin at.
fn begin(request: &v1::WatchEventsRequest, log: &EventPage) -> Result<u64, Error> {
    match (request.after, request.from_oldest) {
        (Some(_), true) => Err(Error::misuse("after", "give it or from_oldest, not both")),
        (None, true) => Ok(log.pruned_through),
        (None, false) => Ok(log.newest),
        (Some(after), false) if after < log.pruned_through => Err(expired(after, log.pruned_through)),
        (Some(after), false) if after > log.newest => Err(Error::misuse(
            "after",
            format!(
                "{after} is beyond the newest event, {}: it is a cursor of another node, or the database was restored",
                log.newest
            ),
        )),
        (Some(after), false) => Ok(after),
    }
}

fn expired(after: u64, pruned_through: u64) -> Error {
    let why = format!(
        "events after {after} were removed for their age, those through {pruned_through}: list payments and channels \
         for what you missed, and go on from {pruned_through}"
    );
    Error::misuse("after", why)
}

struct Watcher {
    source: Arc<dyn EventSource>,
    /// All if absent.
    topics: Option<HashSet<EventTopic>>,
    sender: mpsc::Sender<Result<v1::WatchEventsResponse, Status>>,
    _place: Place,
}

async fn serve(watcher: Watcher, cursor: u64, mut stopping: watch::Receiver<()>) {
    let over = tokio::select! {
        () = watcher.sender.closed() => return,
        // An end of its sender is an end as well.
        _ = stopping.changed() => Error::unavailable("this replica is ending: go on at another from your cursor"),
        () = sleep(LIFE) => Error::unavailable("a stream has its time: go on from your cursor"),
        Err(error) = watcher.tell(cursor) => error,
    };
    // Who does not read hears nothing, and his stream just ends.
    let _ = watcher.sender.try_send(Err(over.into()));
}

impl Watcher {
    async fn tell(&self, mut cursor: u64) -> Result<Infallible, Error> {
        // Whoever is cut off before the first event knows where to go on.
        self.send(cursor, None).await;
        loop {
            if self.source.newest().await? <= cursor {
                sleep(LOOK).await;
                continue;
            }
            let page = self.source.page(cursor, PAGE).await?;
            if cursor < page.pruned_through {
                return Err(expired(cursor, page.pruned_through));
            }
            let mut told = cursor;
            for event in page.events {
                cursor = event.sequence;
                if self.topics.as_ref().is_none_or(|topics| topics.contains(&event.topic())) {
                    told = cursor;
                    self.send(cursor, Some(event)).await;
                }
            }
            if told < cursor {
                self.send(cursor, None).await;
            }
        }
    }

    /// One who has gone away is noticed by [`serve`].
    async fn send(&self, cursor: u64, event: Option<v1::Event>) {
        let _ = self.sender.send(Ok(v1::WatchEventsResponse { cursor, event })).await;
    }
}

#[cfg(test)]
mod tests {
    use holdfast_proto::{identity::Role, node::v1::node_client::NodeClient, tls};
    use tokio::time::timeout;
    use tonic::transport::Channel;

    use super::{
        super::{
            Metrics,
            testing::{Fake, FakeLog, Trust},
        },
        *,
    };

    #[test]
    fn a_stream_begins_where_it_was_asked_to_or_says_why_not() {
        let log = EventPage { pruned_through: 5, newest: 9, events: Vec::new() };
        let from = |after, from_oldest| {
            begin(&v1::WatchEventsRequest { after, from_oldest, ..Default::default() }, &log).map_err(|e| e.to_string())
        };
        assert_eq!(from(None, false), Ok(9));
        assert_eq!(from(None, true), Ok(5));
        for cursor in [5, 7, 9] {
            assert_eq!(from(Some(cursor), false), Ok(cursor));
        }
        assert!(from(Some(4), false).unwrap_err().contains("go on from 5"));
        assert!(from(Some(0), false).unwrap_err().contains("removed for their age"));
        assert!(from(Some(10), false).unwrap_err().contains("beyond the newest event, 9"));
        assert!(from(Some(7), true).unwrap_err().contains("not both"));
    }

    async fn refused(client: &mut NodeClient<Channel>) -> Error {
        client.watch_events(v1::WatchEventsRequest::default()).await.map(drop).unwrap_err().into()
    }

    #[tokio::test]
    async fn streams_have_a_limit_and_end_with_their_replica() {
        let (trust, log) = (Trust::new(), Arc::new(FakeLog::default()));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = listener.local_addr().unwrap().to_string();
        let fake = Fake { log: log.clone(), ..Fake::standing_by("b", "") };
        let stop = trust.serve("a", listener, fake, Arc::new(Metrics::new())).await;
        let patience = Duration::from_secs(20);
        let client = async |name: &str| {
            let credentials = trust.credentials(Role::Operator, name);
            NodeClient::new(tls::connect(&endpoint, &credentials, Role::Replica, patience).await.unwrap())
        };
        let (mut streams, mut last) = (Vec::new(), client("a0").await);
        for n in 0..WATCHERS / OF_ONE {
            last = client(&format!("a{n}")).await;
            for _ in 0..OF_ONE {
                streams.push(last.watch_events(v1::WatchEventsRequest::default()).await.unwrap().into_inner());
            }
            let Error::Unavailable { what, .. } = refused(&mut last).await else { panic!("not unavailable") };
            let in_all = streams.len() == WATCHERS;
            assert!(what.contains(if in_all { "128 streams" } else { "32 streams of operator a" }), "{what}");
        }
        assert!(matches!(refused(&mut client("bob").await).await, Error::Unavailable { .. }));
        // Who goes away makes room.
        drop(streams.pop());
        let again = async {
            loop {
                match last.watch_events(v1::WatchEventsRequest::default()).await {
                    Ok(stream) => return stream.into_inner(),
                    Err(_) => sleep(Duration::from_millis(5)).await,
                }
            }
        };
        streams.push(timeout(patience, again).await.unwrap());

        log.push(3, EventTopic::Leader, "elected");
        let mut stream = streams.swap_remove(0);
        let first = stream.message().await.unwrap().unwrap();
        assert_eq!((first.cursor, first.event), (0, None));
        let second = stream.message().await.unwrap().unwrap();
        assert_eq!((second.cursor, second.event.unwrap().what.as_str()), (3, "elected"));
        drop(stop);
        let end = timeout(patience, stream.message()).await.unwrap().unwrap_err();
        let Error::Unavailable { what, .. } = Error::from(end) else { panic!("not unavailable") };
        assert!(what.contains("go on at another"), "{what}");
    }
}
