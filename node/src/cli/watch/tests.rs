//! Against replicas that share a log, over real mutual TLS.

use std::{
    fs,
    sync::{Arc, Mutex},
};

use holdfast_proto::{identity::Role, node::v1::EventTopic};
use tokio::{net::TcpListener, sync::oneshot};

use super::*;
use crate::{
    api::{
        Metrics,
        testing::{Fake, FakeLog, Trust},
    },
    cli::args::ConnectionArgs,
};

/// Replicas that serve one log, each until it is killed.
struct Cluster {
    trust: Trust,
    log: Arc<FakeLog>,
    endpoints: Vec<String>,
    running: Vec<Option<oneshot::Sender<()>>>,
}

impl Cluster {
    async fn of(replicas: usize) -> Self {
        let (trust, log) = (Trust::new(), Arc::new(FakeLog::default()));
        let mut cluster = Self { trust, log, endpoints: Vec::new(), running: Vec::new() };
        for number in 0..replicas {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            cluster.endpoints.push(listener.local_addr().unwrap().to_string());
            let fake = Fake { log: cluster.log.clone(), ..Fake::standing_by("", "") };
            let stop = cluster.trust.serve(&format!("r{number}"), listener, fake, Arc::new(Metrics::new())).await;
            cluster.running.push(Some(stop));
        }
        cluster
    }

    fn settings(&self) -> Settings {
        self.trust.credentials(Role::Operator, "alice");
        let file = self.trust.0.path().join("cli.toml");
        let files = "certificate = \"operator-alice.pem\"\nkey = \"operator-alice.key\"\nca = \"ca.pem\"";
        fs::write(&file, format!("endpoints = {:?}\n{files}", self.endpoints)).unwrap();
        let patience = Some(Duration::from_secs(2));
        Settings::load(ConnectionArgs { config: Some(file), timeout: patience, ..Default::default() }).unwrap()
    }
}

/// What was written, for a test to read while the command runs.
#[derive(Clone, Default)]
struct Screen(Arc<Mutex<Vec<u8>>>);

impl Write for Screen {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Screen {
    fn lines(&self) -> Vec<Value> {
        let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// The cursors of the events that were shown.
    fn cursors(&self) -> Vec<u64> {
        let events = self.lines().into_iter().filter(|line| line.get("event").is_some());
        events.map(|event| event["cursor"].as_u64().unwrap()).collect()
    }

    async fn shows(&self, what: impl Fn(&Self) -> bool) {
        let shown = async {
            while !what(self) {
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(Duration::from_secs(20), shown).await.unwrap_or_else(|_| panic!("only {:?}", self.lines()));
    }
}

fn all_from(from: Option<From>) -> WatchArgs {
    WatchArgs { from, topics: Vec::new(), count: None }
}

#[tokio::test]
async fn a_lost_replica_is_followed_by_the_next_without_loss_or_repeat() {
    let mut cluster = Cluster::of(3).await;
    let (settings, screen) = (cluster.settings(), Screen::default());
    let mut out = screen.clone();
    let watching = tokio::spawn(async move {
        let args = WatchArgs { count: Some(60), ..all_from(None) };
        run(&settings, &args, true, &mut out).await
    });
    // The first line says where the stream stands, so that nothing is missed even before the first event.
    screen.shows(|screen| screen.lines() == [json!({ "cursor": 0 })]).await;
    for sequence in 1..=60u64 {
        cluster.log.push(sequence * 3, EventTopic::Payment, "created");
        if sequence == 20 || sequence == 40 {
            screen.shows(|screen| !screen.cursors().is_empty()).await;
            cluster.running[sequence as usize / 20 - 1].take();
        }
    }
    timeout(Duration::from_secs(20), watching).await.unwrap().unwrap().unwrap();
    assert_eq!(screen.cursors(), (1..=60).map(|sequence| sequence * 3).collect::<Vec<_>>());
}

#[tokio::test]
async fn it_begins_where_it_is_told_shows_what_is_asked_for_and_ends_when_it_has_enough() {
    let cluster = Cluster::of(1).await;
    let settings = cluster.settings();
    for (sequence, topic) in [(2, EventTopic::Payment), (4, EventTopic::Channel), (7, EventTopic::Payment)] {
        cluster.log.push(sequence, topic, "created");
    }
    let watched = async |args: WatchArgs| {
        let mut screen = Screen::default();
        timeout(Duration::from_secs(20), run(&settings, &args, true, &mut screen)).await.unwrap().unwrap();
        screen.cursors()
    };
    let count = |count, args| WatchArgs { count: Some(count), ..args };
    assert_eq!(watched(count(3, all_from(Some(From::Oldest)))).await, [2, 4, 7]);
    assert_eq!(watched(count(2, all_from(Some(From::Behind(2))))).await, [4, 7]);
    let payments = WatchArgs { topics: vec![Topic::Payment], ..count(2, all_from(Some(From::Oldest))) };
    assert_eq!(watched(payments).await, [2, 7]);

    let beyond = run(&settings, &all_from(Some(From::Behind(99))), true, &mut Screen::default()).await.unwrap_err();
    assert!(beyond.exit == Exit::Data && beyond.message.contains("beyond the newest event, 7"), "{beyond}");
}

#[tokio::test]
async fn without_any_replica_it_says_so() {
    let mut cluster = Cluster::of(1).await;
    let settings = cluster.settings();
    cluster.running.clear();
    let settings = Settings { patience: Duration::from_millis(1), ..settings };
    let failure = run(&settings, &all_from(None), true, &mut Screen::default()).await.unwrap_err();
    assert!(failure.exit == Exit::Unavailable && failure.message.contains("no replica answers"), "{failure}");
}

#[tokio::test]
async fn replicas_that_answer_with_errors_are_told_from_those_that_do_not_answer() {
    let mut cluster = Cluster::of(2).await;
    let settings = Settings { patience: Duration::from_millis(1), ..cluster.settings() };
    *cluster.log.away.lock().unwrap() = Some("postgres: connection refused".into());
    let failure = run(&settings, &all_from(None), true, &mut Screen::default()).await.unwrap_err();
    assert_eq!(failure.exit, Exit::Unavailable);
    let said = failure.message.matches("postgres: connection refused").count();
    assert!(said == 2 && !failure.message.contains("no replica answers"), "{failure}");
    cluster.running.pop();
    let failure = run(&settings, &all_from(None), true, &mut Screen::default()).await.unwrap_err();
    assert!(cluster.endpoints.iter().all(|endpoint| failure.message.contains(endpoint)), "{failure}");
    assert!(failure.message.contains("no replica shows its events"), "{failure}");
}

#[test]
fn a_line_stays_a_line() {
    let payment = v1::Payment {
        direction: v1::PaymentDirection::Outbound.into(),
        amount_msat: Some(5_000_000),
        payment_id: "ab".repeat(32),
        label: "rent\u{1b}[2J\nApril".into(),
        ..Default::default()
    };
    let event = v1::Event {
        sequence: 17,
        at_ms: 1_700_000_000_000,
        topic: EventTopic::Payment.into(),
        what: "succeeded".into(),
        subject: Some(Subject::Payment(payment)),
    };
    let line = as_text(&event);
    assert!(line.starts_with("2023-11-14 22:13:20Z  17  payment succeeded  "), "{line}");
    assert!(line.contains("5 000 sat") && line.ends_with("(rent [2J April)"), "{line}");
}
