//! The status page in a real browser, where there is one (Debian's package `chromium`).

use std::{fs, path::Path, process::Command, time::Duration};

use anyhow::{Context, Result, ensure};
use holdfast_softhsm_tests::Scene;

pub async fn looks_at_it(scene: &Scene) -> Result<()> {
    let Some(browser) = ["chromium", "chromium-browser", "google-chrome"].into_iter().find(|name| runs(name)) else {
        println!("no chromium here: the page was read as text only");
        return Ok(());
    };
    let pictures = scene.folder().join("pictures");
    fs::create_dir_all(&pictures)?;
    let (leader, _) = scene.leader().await?;
    for (who, address) in [("leader", leader.health()), ("standby", scene.standby().await?.health())] {
        let url = format!("http://{address}/");
        let (dom, complaints) = run(browser, &pictures, &["--dump-dom", &url]).await?;
        ensure!(dom.contains("id=\"takeovers\""), "{who}: the browser sees\n{dom}");
        ensure!(!complaints.contains("Content Security Policy"), "{who}: the browser complains: {complaints}");
        // Tall enough for all of it; narrow as a telephone.
        for (name, size) in [("wide", "1200,1700"), ("narrow", "480,2600")] {
            let picture = pictures.join(format!("{who}-{name}.png"));
            let (screenshot, size) = (format!("--screenshot={}", picture.display()), format!("--window-size={size}"));
            run(browser, &pictures, &[&screenshot, &size, &url]).await?;
            let bytes = fs::metadata(&picture).with_context(|| format!("no picture {}", picture.display()))?.len();
            ensure!(bytes > 10_000, "{}: {bytes} bytes is an empty page", picture.display());
        }
    }
    Ok(())
}

fn runs(name: &str) -> bool {
    Command::new(name).arg("--version").output().is_ok_and(|output| output.status.success())
}

async fn run(browser: &str, profile: &Path, arguments: &[&str]) -> Result<(String, String)> {
    let child = tokio::process::Command::new(browser)
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--enable-logging=stderr"])
        .arg(format!("--user-data-dir={}", profile.join("profile").display()))
        .args(arguments)
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(Duration::from_secs(60), child).await.context("the browser hangs")??;
    ensure!(output.status.success(), "{browser}: {}", String::from_utf8_lossy(&output.stderr));
    Ok((String::from_utf8(output.stdout)?, String::from_utf8_lossy(&output.stderr).into_owned()))
}
