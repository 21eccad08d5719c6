//! What happens is told once and in order, to a watcher who follows through the death of every replica.

use std::{
    collections::HashMap,
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use holdfast_local::Probe;
use holdfast_proto::node::v1::{PaymentDirection, PaymentStatus};
use holdfast_softhsm_tests::{PROMPT, Scene};
use serde_json::Value;

#[tokio::test(flavor = "multi_thread")]
async fn p2_p3_a_watcher_sees_every_event_once_and_in_order_through_kill_dash_nine() {
    let scene = Scene::with_channels().await.unwrap();
    let before = scene.payments().await.unwrap().first().map_or(0, |payment| payment.sequence);
    let watcher = Watcher::begin(&scene, &[]);
    // The first line says where it stands.
    watcher.sees(&scene, "where it begins", |lines| !lines.is_empty()).await;

    let mut terms = Vec::new();
    // Each replica leads once and is killed once, so the watcher loses whichever it is at.
    for _ in 0..2 {
        let mut stream = scene.stream().await.unwrap();
        tokio::time::sleep(Duration::from_millis(700)).await;
        let (leader, _) = scene.leader().await.unwrap();
        leader.kill().unwrap();
        stream.settles_after(&scene, Instant::now()).await.unwrap();
        stream.finish(&scene).await.unwrap();
        terms.push(scene.info().await.unwrap().term);
        leader.start().await.unwrap();
    }

    // All payments are over: the last of them is the end of what is waited for.
    let payments = scene.payments().await.unwrap();
    let payments: Vec<_> = payments.into_iter().filter(|payment| payment.sequence > before).collect();
    assert!(payments.len() > 10, "{}", payments.len());
    let ended = payments.iter().filter(|payment| payment.status() != PaymentStatus::Pending).count();
    watcher
        .sees(&scene, "the end of every payment", |lines| {
            let ends = |line: &&Value| ["succeeded", "failed"].iter().any(|end| line["event"] == *end);
            lines.iter().filter(ends).count() >= ended
        })
        .await;
    let lines = watcher.lines();
    let events: Vec<&Value> = lines.iter().filter(|line| !line["event"].is_null()).collect();
    let cursors: Vec<u64> = events.iter().map(|event| event["cursor"].as_u64().unwrap()).collect();
    assert!(cursors.is_sorted_by(|a, b| a < b), "{cursors:?}");

    // Each payment: created, then what became of it, each once.
    let mut stories: HashMap<(&str, &str), Vec<&str>> = HashMap::new();
    for event in events.iter().filter(|event| event["topic"] == "payment") {
        let subject = &event["subject"];
        let payment = (subject["payment_id"].as_str().unwrap(), subject["direction"].as_str().unwrap());
        stories.entry(payment).or_default().push(event["event"].as_str().unwrap());
    }
    for payment in &payments {
        let direction = if payment.direction() == PaymentDirection::Inbound { "inbound" } else { "outbound" };
        let story = stories.remove(&(payment.payment_id.as_str(), direction));
        let told: &[&str] = match payment.status() {
            PaymentStatus::Succeeded => &["created", "succeeded"],
            PaymentStatus::Failed => &["created", "failed"],
            _ => &["created"],
        };
        assert_eq!(story.as_deref(), Some(told), "{payment:?}");
    }
    assert!(stories.is_empty(), "events of payments that there are not: {stories:?}");
    let elected: Vec<u64> = events
        .iter()
        .filter(|event| event["topic"] == "leader" && event["event"] == "elected")
        .map(|event| event["subject"]["term"].as_u64().unwrap())
        .collect();
    assert_eq!(elected, terms);
    assert!(events.iter().any(|event| event["topic"] == "forward"));

    // Asked for again from the first one, by another: the same, to the letter.
    let (first, count) = (lines[0]["cursor"].as_u64().unwrap().to_string(), events.len().to_string());
    let again = Watcher::begin(&scene, &["--from", &first, "--count", &count]);
    again.sees(&scene, "the same events", |lines| lines.len() > events.len()).await;
    let again: Vec<Value> = again.lines().into_iter().filter(|line| !line["event"].is_null()).collect();
    assert!(again.iter().eq(events.iter().copied()));
    println!("{} events of {} payments, terms {terms:?}: {}", events.len(), payments.len(), watcher.notes());
}

/// A `holdfast watch` that runs until it is dropped.
struct Watcher {
    process: Child,
    lines: Arc<Mutex<Vec<Value>>>,
    notes: Arc<Mutex<String>>,
}

impl Watcher {
    fn begin(scene: &Scene, options: &[&str]) -> Self {
        let mut command = Command::new(&scene.programs().cli);
        command.arg("--config").arg(scene.operator().cli_configuration()).args(["--json", "watch"]).args(options);
        let mut process = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (lines, notes) = (Arc::<Mutex<Vec<Value>>>::default(), Arc::<Mutex<String>>::default());
        let (output, errors) = (process.stdout.take().unwrap(), process.stderr.take().unwrap());
        let kept = lines.clone();
        thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                kept.lock().unwrap().push(serde_json::from_str(&line).unwrap());
            }
        });
        let kept = notes.clone();
        thread::spawn(move || {
            for line in BufReader::new(errors).lines().map_while(Result::ok) {
                *kept.lock().unwrap() += &format!("{line}; ");
            }
        });
        Self { process, lines, notes }
    }

    fn lines(&self) -> Vec<Value> {
        self.lines.lock().unwrap().clone()
    }

    fn notes(&self) -> String {
        self.notes.lock().unwrap().clone()
    }

    async fn sees(&self, scene: &Scene, what: &str, enough: impl Fn(&[Value]) -> bool) {
        let looked = scene.wait_for(what, PROMPT, async || {
            let lines = self.lines();
            let seen = || format!("{} lines, the last {:?}; {}", lines.len(), lines.last(), self.notes());
            Ok(Probe::when(enough(&lines), (), seen))
        });
        looked.await.unwrap();
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
