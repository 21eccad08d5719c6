//! The dashboards' queries and the alert rules in a real Prometheus, where there is one (Debian's package `prometheus`).

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use holdfast_local::{
    Probe,
    ports::Port,
    process::{Launch, Process},
};
use holdfast_softhsm_tests::Scene;

/// Queries of what a deployment in order has nothing of.
const NOTHING_WRONG: [&str; 2] = ["Refusals by rule", "Alerts"];
const RATE_INTERVAL: &str = "15s";
const DATA: Duration = Duration::from_secs(60);

/// A Prometheus that looks at the deployment once a second, with the rules of `deploy/monitoring`.
pub struct Prometheus {
    _process: Process,
    url: String,
    _port: Port,
}

impl Prometheus {
    /// None where there is no such program.
    pub fn start(scene: &Scene) -> Result<Option<Self>> {
        let there = |name| Command::new(name).arg("--version").output().is_ok_and(|output| output.status.success());
        if !(there("prometheus") && there("promtool")) {
            println!("no Prometheus here: dashboards and alerts were not asked for data");
            return Ok(None);
        }
        let port = Port::lease()?;
        let home = scene.folder().join("prometheus");
        fs::create_dir_all(&home)?;
        let replicas: Vec<_> = scene.replicas().iter().map(|replica| replica.health()).collect();
        // JSON is YAML.
        let configuration = serde_json::json!({
            "global": { "scrape_interval": "1s", "evaluation_interval": "1s" },
            "rule_files": [monitoring().join("alerts.yml")],
            "scrape_configs": [
                { "job_name": "holdfast", "static_configs": [{ "targets": replicas }] },
                { "job_name": "holdfast-signer", "static_configs": [{ "targets": [scene.signer().health()] }] },
                { "job_name": "prometheus", "static_configs": [{ "targets": [port.address().to_string()] }] },
            ],
        });
        let file = home.join("prometheus.yml");
        fs::write(&file, configuration.to_string())?;
        let arguments = [
            format!("--config.file={}", file.display()),
            format!("--storage.tsdb.path={}", home.join("data").display()),
            format!("--web.listen-address={}", port.address()),
        ];
        let process = Process::new("prometheus", Launch::new("prometheus", arguments), scene.logs());
        process.start()?;
        Ok(Some(Self { _process: process, url: format!("http://{}", port.address()), _port: port }))
    }

    /// Every query of every panel, and every series that a rule asks for, has data; no rule fails, and none fires.
    pub async fn has_data_for_everything(&self, scene: &Scene) -> Result<()> {
        for file in ["holdfast.json", "holdfast-signer.json"] {
            for panel in panels(file)? {
                let title = panel["title"].as_str().context("a panel without a title")?;
                let text = panel["description"].as_str().is_some_and(|text| !text.is_empty());
                ensure!(text || panel["type"] == "row", "{file}, {title}: no description");
                for target in panel["targets"].as_array().into_iter().flatten() {
                    let query = target["expr"].as_str().context("a target without a query")?;
                    let query = query.replace("$__rate_interval", RATE_INTERVAL);
                    if !NOTHING_WRONG.contains(&title) {
                        self.answers(scene, &format!("{file}, {title}: {query}"), &query).await?;
                    }
                }
            }
        }
        for name in series(&fs::read_to_string(monitoring().join("alerts.yml"))?) {
            self.answers(scene, &format!("alerts.yml: {name}"), &name).await?;
        }
        let evaluated = "sum(prometheus_rule_group_rules) > 10 and min(prometheus_rule_group_iterations_total) > 2";
        self.answers(scene, "the rules to be evaluated", evaluated).await?;
        let failed = self.query("prometheus_rule_evaluation_failures_total > 0").await?;
        ensure!(failed.is_empty(), "rules that cannot be evaluated:\n{failed}");
        let firing = self.query("ALERTS{alertstate=\"firing\"}").await?;
        ensure!(firing.is_empty(), "alerts of a deployment in order:\n{firing}");
        Ok(())
    }

    /// The first query of a panel.
    pub fn query_of(&self, file: &str, title: &str) -> Result<String> {
        let panel = panels(file)?.into_iter().find(|panel| panel["title"] == title).context("no such panel")?;
        let query = panel["targets"][0]["expr"].as_str().context("a panel without a query")?;
        Ok(query.replace("$__rate_interval", RATE_INTERVAL))
    }

    pub async fn answers(&self, scene: &Scene, what: &str, query: &str) -> Result<()> {
        let data = async || {
            let answer = self.query(query).await?;
            Ok(Probe::when(!answer.is_empty(), (), || "no data".into()))
        };
        scene.wait_for(what, DATA, data).await
    }

    /// One line a series, as `promtool` writes them.
    async fn query(&self, query: &str) -> Result<String> {
        let output = tokio::process::Command::new("promtool").args(["query", "instant", &self.url, query]).output();
        let output = output.await?;
        ensure!(output.status.success(), "{query}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8(output.stdout)?.trim().to_owned())
    }
}

fn panels(file: &str) -> Result<Vec<serde_json::Value>> {
    let dashboard = fs::read_to_string(monitoring().join("grafana").join(file))?;
    let dashboard: serde_json::Value = serde_json::from_str(&dashboard)?;
    Ok(dashboard["panels"].as_array().context("no panels")?.clone())
}

fn monitoring() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/monitoring")
}

/// The names of our series in a file of rules, those that its texts speak of included.
fn series(rules: &str) -> BTreeSet<String> {
    let words = rules.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| word.starts_with("holdfast_") && *word != "holdfast_public").map(str::to_owned).collect()
}
