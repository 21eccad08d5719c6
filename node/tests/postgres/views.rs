//! The views that people query: what they show, who may read them, and that docs/sql.md says the same.

use std::{fmt::Write as _, path::Path};

use holdfast_node::store::batch::{Deposit, Direction, PaymentChange, PaymentPart, PaymentStatus, Standing};
use holdfast_node::store::{Batch, CommitError, Effect, KvKey, KvWrite, MonitorKey, MonitorWrite, Store};
use tokio_postgres::{Client, NoTls};

use crate::server::{Server, lead, open};
use crate::store::payment;

fn one_of_each() -> Vec<Effect> {
    let paid = PaymentChange {
        amount_msat: Some(5_000),
        fee_msat: Some(7),
        preimage: Some([9; 32]),
        ..payment(1, Direction::Outbound, PaymentStatus::Succeeded)
    };
    let funding = bitcoin::OutPoint { txid: "ab".repeat(32).parse().unwrap(), vout: 3 };
    let forward = |event: u8, fee_msat| Effect::Forward {
        event_id: [event; 32],
        incoming_channel: [0; 32],
        outgoing_channel: [4; 32],
        amount_msat: Some(1_000_000),
        fee_msat: Some(fee_msat),
    };
    let part = PaymentPart {
        part_id: [6; 32],
        payment_id: [1; 32],
        direction: Direction::Outbound,
        failure: None,
        channel: Some("1x2x3".into()),
        hops: Vec::new(),
        amount_msat: 5_000,
        fee_msat: 7,
        held_ms: None,
        failed_channel: None,
    };
    let offer = Effect::OfferCreated {
        offer_id: [7; 32],
        offer: "lno1x".into(),
        amount_msat: Some(5_000),
        description: "tea".into(),
        label: None,
        expires_at_s: None,
    };
    vec![
        Effect::Payment(paid),
        Effect::PaymentPart(part),
        offer,
        Effect::ChannelPending { channel_id: [4; 32], user_channel_id: 5, counterparty: [3; 33], funding },
        Effect::ChannelReady { channel_id: [4; 32], user_channel_id: 5 },
        forward(1, 1_000),
        forward(2, 500),
        Effect::Broadcast { txid: funding.txid, raw: vec![1, 2, 3] },
        Effect::PeerAdded { node_id: [3; 33], address: "peer.example:9735".into() },
        Effect::Deposit(Deposit {
            outpoint: funding,
            address: "bcrt1q".into(),
            amount_sat: 5_000,
            label: Some("rent".into()),
            standing: Standing::Mined,
            block: Some((7, "cd".repeat(32).parse().unwrap())),
            confirmations: 1,
        }),
    ]
}

fn channel_backup() -> KvWrite {
    let key = KvKey { primary: "channel-backup".into(), secondary: String::new(), key: "04".repeat(32) };
    let value = br#"{"counterparty":"02ab","addresses":["peer.example:9735","h:1"],"funding_outpoint":"ab:3",
        "capacity_sat":100000,"channel_type":"anchors","channel_keys_id":"cd","written_ms":1500}"#;
    KvWrite::Put { key, value: value.to_vec() }
}

fn returned_backup() -> KvWrite {
    let key = KvKey { primary: "channel-backup-returned".into(), secondary: String::new(), key: "05".repeat(32) };
    let value = br#"{"counterparty":"02ab","addresses":[],"funding_outpoint":"ab:3","capacity_sat":100000,
        "channel_type":"anchors","channel_keys_id":"cd","written_ms":1500,"returned_by":"03cd"}"#;
    KvWrite::Put { key, value: value.to_vec() }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_views_show_what_was_committed() {
    let server = Server::quick().await;
    let (leadership, store) = open(&server.config()).await;
    let kv = vec![channel_backup(), returned_backup()];
    store.commit(&Batch { manager: Some(vec![1]), effects: one_of_each(), kv, ..Batch::default() }).await.unwrap();
    leadership.record_phases(&[("load".to_owned(), std::time::Duration::from_millis(3))].into()).await.unwrap();
    let client = server.admin().await;
    for (question, answer) in [
        (
            "SELECT concat_ws(' ', direction, kind, status, amount_msat, fee_msat) FROM holdfast_public.payments",
            "outbound bolt11 succeeded 5000 7".to_owned(),
        ),
        ("SELECT payment_hash || preimage FROM holdfast_public.payments", "01".repeat(32) + &"09".repeat(32)),
        (
            "SELECT concat_ws(' ', outgoing_channel_id, amount_msat, fee_msat, incoming_channel_id IS NULL) FROM holdfast_public.forwards ORDER BY sequence LIMIT 1",
            format!("{} 1000000 1000 t", "04".repeat(32)),
        ),
        (
            "SELECT concat_ws(' ', day = (now() AT TIME ZONE 'UTC')::date, forwards, amount_msat, fee_msat) FROM holdfast_public.fees_per_day",
            "t 2 2000000 1500".to_owned(),
        ),
        (
            "SELECT concat_ws(' ', channel_id, counterparty, forwards, fee_msat) FROM holdfast_public.fees_per_channel_day",
            format!("{} {} 2 1500", "04".repeat(32), "03".repeat(33)),
        ),
        (
            "SELECT concat_ws(' ', state, funding_txid, funding_vout, ready_seconds >= 0, closed_at) FROM holdfast_public.channels",
            format!("ready {} 3 t", "ab".repeat(32)),
        ),
        (
            "SELECT concat_ws(' ', size_bytes, funds_channel_id, raw) FROM holdfast_public.onchain_transactions",
            format!("3 {} 010203", "04".repeat(32)),
        ),
        (
            "SELECT concat_ws(' ', node_id, network, term, leader, commits_in_term) FROM holdfast_public.cluster",
            format!("{} regtest 1 first 1", "02".repeat(33)),
        ),
        (
            "SELECT concat_ws(' ', term, replica, ended_at IS NULL, takeover_us >= 3000) FROM holdfast_public.leadership_history",
            "1 first t t".to_owned(),
        ),
        ("SELECT took_us::text FROM holdfast_public.takeover_phases WHERE phase = 'load'", "3000".to_owned()),
        (
            "SELECT concat_ws(' ', counterparty, addresses, capacity_sat, written_at = to_timestamp(1.5)) FROM holdfast_public.channel_backups WHERE returned_by IS NULL",
            "02ab {peer.example:9735,h:1} 100000 t".to_owned(),
        ),
        (
            "SELECT concat_ws(' ', channel_id, returned_by) FROM holdfast_public.channel_backups WHERE returned_by IS NOT NULL",
            format!("{} 03cd", "05".repeat(32)),
        ),
        (
            "SELECT concat_ws(' ', txid, vout, address, amount_sat, label, standing, block_height) FROM holdfast_public.deposits",
            format!("{} 3 bcrt1q 5000 rent mined 7", "ab".repeat(32)),
        ),
        (
            "SELECT node_id || ' ' || address FROM holdfast_public.peers",
            format!("{} peer.example:9735", "03".repeat(33)),
        ),
    ] {
        let found: String = client.query_one(question, &[]).await.unwrap().get(0);
        assert_eq!(found, answer, "{question}");
    }
    drop((leadership, store));
    let _second = lead(&server.config(), "second").await;
    let ended = "SELECT ended_at = (SELECT since FROM holdfast_public.cluster) FROM holdfast_public.leadership_history WHERE term = 1";
    assert!(client.query_one(ended, &[]).await.unwrap().get::<_, bool>(0));
}

/// The views are over tables, so this is about the tables' rows: the transaction that wrote the state wrote them too.
#[tokio::test(flavor = "multi_thread")]
async fn p2_a_row_that_people_see_is_written_by_the_transaction_that_wrote_the_state() {
    let server = Server::quick().await;
    let (leadership, store) = open(&server.config()).await;
    let client = server.admin().await;
    let key = MonitorKey([4; 32]);
    let monitors = vec![MonitorWrite::Full { key, update_id: 1, bytes: vec![1] }];
    let batch = Batch { manager: Some(vec![1]), monitors, effects: one_of_each(), kv: vec![channel_backup()] };
    store.commit(&batch).await.unwrap();
    let tables = [
        "payments",
        "payment_parts",
        "offers",
        "forwards",
        "channels",
        "onchain_broadcasts",
        "deposits",
        "peers",
        "monitors",
        "manager",
        "kv",
        "last_batch",
    ];
    let rows: Vec<String> = tables.iter().map(|table| format!("SELECT xmin::text FROM holdfast.{table}")).collect();
    let distinct = format!("SELECT count(DISTINCT xmin) FROM ({}) AS rows", rows.join(" UNION ALL "));
    assert_eq!(client.query_one(&distinct, &[]).await.unwrap().get::<_, i64>(0), 1);

    // A view cannot show what another transaction wrote, unless it is over something that is not among those tables.
    let others = client
        .query(
            "SELECT DISTINCT view_name::text, table_name::text FROM information_schema.view_table_usage
             WHERE view_schema = 'holdfast_public' AND (table_schema <> 'holdfast' OR NOT table_name = ANY ($1))
               AND view_name NOT IN ('cluster', 'leadership_history', 'takeover_phases')",
            &[&tables.as_slice()],
        )
        .await
        .unwrap();
    let others: Vec<(String, String)> = others.iter().map(|row| (row.get(0), row.get(1))).collect();
    assert!(others.is_empty(), "views over tables that this test does not look at: {others:?}");

    // What cannot be committed whole is not seen at all; nor is what an old term writes.
    let count = "SELECT count(*) FROM holdfast_public.payments";
    let second = Effect::Payment(payment(2, Direction::Inbound, PaymentStatus::Pending));
    let missing = MonitorWrite::Update { key: MonitorKey([99; 32]), update_id: 1, bytes: vec![] };
    let bad = Batch { monitors: vec![missing], effects: vec![second.clone()], ..Batch::default() };
    assert!(matches!(store.commit(&bad).await, Err(CommitError::Broken(_))));
    drop(leadership);
    let _second = lead(&server.config(), "second").await;
    let late = Batch { effects: vec![second], ..Batch::default() };
    assert!(matches!(store.commit(&late).await, Err(CommitError::Fenced { .. })));
    assert_eq!(client.query_one(count, &[]).await.unwrap().get::<_, i64>(0), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_s_role_sees_the_views_and_nothing_else() {
    let server = Server::quick().await;
    let (_leadership, store) = open(&server.config()).await;
    store.commit(&Batch { manager: Some(vec![1]), effects: one_of_each(), ..Batch::default() }).await.unwrap();
    let client = reporting(&server).await;
    for view in views(&client).await {
        client.query(&format!("SELECT * FROM holdfast_public.{view}"), &[]).await.unwrap();
    }
    for forbidden in [
        "SELECT * FROM holdfast.manager",
        "SELECT * FROM holdfast.payments",
        "DELETE FROM holdfast_public.peers",
        "UPDATE holdfast_public.payments SET fee_msat = 0",
    ] {
        let error = client.batch_execute(forbidden).await.unwrap_err();
        assert_eq!(
            error.code(),
            Some(&tokio_postgres::error::SqlState::INSUFFICIENT_PRIVILEGE),
            "{forbidden}: {error}"
        );
    }
}

/// What a view leaves out stays out, also for a reader who brings a function of his own to the question.
#[tokio::test(flavor = "multi_thread")]
async fn a_reader_s_own_function_is_shown_no_more_than_the_view_shows() {
    let server = Server::quick().await;
    let (_leadership, store) = open(&server.config()).await;
    let key = KvKey { primary: "holds".into(), secondary: String::new(), key: "5e".repeat(32) };
    let kv = vec![channel_backup(), KvWrite::Put { key, value: b"{}".to_vec() }];
    store.commit(&Batch { manager: Some(vec![1]), kv, ..Batch::default() }).await.unwrap();
    let client = reporting(&server).await;
    client
        .batch_execute(
            "CREATE FUNCTION pg_temp.look(text) RETURNS boolean LANGUAGE plpgsql COST 0.0001 AS $$
             BEGIN
                 IF $1 LIKE '5e%' THEN RAISE EXCEPTION 'saw %', $1; END IF;
                 RETURN true;
             END $$",
        )
        .await
        .unwrap();
    let seen = "SELECT channel_id FROM holdfast_public.channel_backups WHERE pg_temp.look(channel_id)";
    let seen: Vec<String> = client.query(seen, &[]).await.unwrap().iter().map(|row| row.get(0)).collect();
    assert_eq!(seen, ["04".repeat(32)]);

    // A view that leaves rows out says so to the planner.
    let open = server.admin().await;
    let filtering = "SELECT relname::text FROM pg_class WHERE relnamespace = 'holdfast_public'::regnamespace
        AND pg_get_viewdef(oid) LIKE '%WHERE %primary_namespace%' AND NOT 'security_barrier=true' = ANY (COALESCE(reloptions, '{}'))";
    let open: Vec<String> = open.query(filtering, &[]).await.unwrap().iter().map(|row| row.get(0)).collect();
    assert!(open.is_empty(), "{open:?}");
}

/// As the role that docs/sql.md has people make for reports.
async fn reporting(server: &Server) -> Client {
    let page = std::fs::read_to_string(page()).unwrap();
    for block in ["role", "grants"] {
        let (_, sql) = page.split_once(&format!("```sql {block}\n")).expect("docs/sql.md has the block");
        let (sql, _) = sql.split_once("```").unwrap();
        server.admin().await.batch_execute(sql).await.unwrap();
    }
    let url = format!("host=127.0.0.1 port={} user=reporting dbname=postgres", server.port);
    let (client, connection) = tokio_postgres::connect(&url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

/// `HOLDFAST_WRITE_DOCS=1` writes the page instead of comparing it.
#[tokio::test(flavor = "multi_thread")]
async fn docs_sql_md_says_what_the_catalogue_says() {
    const START: &str = "<!-- from the catalogue: views -->\n";
    let server = Server::quick().await;
    let _open = open(&server.config()).await;
    let client = server.admin().await;
    let mut text = String::new();
    for view in views(&client).await {
        let about: Option<String> = client
            .query_one("SELECT obj_description(to_regclass('holdfast_public.' || $1), 'pg_class')", &[&view])
            .await
            .unwrap()
            .get(0);
        let about = about.unwrap_or_else(|| panic!("view {view} has no comment"));
        write!(text, "### {view}\n\n{about}\n\n| column | type | what |\n|---|---|---|\n").unwrap();
        let columns = client
            .query(
                "SELECT attname::text, format_type(atttypid, atttypmod), col_description(attrelid, attnum)
                 FROM pg_attribute WHERE attrelid = to_regclass('holdfast_public.' || $1) AND attnum > 0 ORDER BY attnum",
                &[&view],
            )
            .await
            .unwrap();
        for column in columns {
            let (name, kind, what): (String, String, Option<String>) = (column.get(0), column.get(1), column.get(2));
            let what = what.unwrap_or_else(|| panic!("column {view}.{name} has no comment"));
            writeln!(text, "| `{name}` | {kind} | {what} |").unwrap();
        }
        text.push('\n');
    }
    let page_text = std::fs::read_to_string(page()).unwrap();
    let (before, after) = page_text.split_once(START).expect("docs/sql.md has the mark");
    if std::env::var_os("HOLDFAST_WRITE_DOCS").is_some() {
        return std::fs::write(page(), format!("{before}{START}{}", "\n".to_owned() + text.trim_end() + "\n")).unwrap();
    }
    assert_eq!(
        after.trim(),
        text.trim(),
        "docs/sql.md is not what the views' comments say; HOLDFAST_WRITE_DOCS=1 writes it"
    );
}

fn page() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/sql.md")
}

async fn views(client: &Client) -> Vec<String> {
    let rows = client
        .query(
            "SELECT relname::text FROM pg_class WHERE relnamespace = 'holdfast_public'::regnamespace ORDER BY 1",
            &[],
        )
        .await
        .unwrap();
    let views: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    assert!(views.len() >= 10, "{views:?}");
    views
}
