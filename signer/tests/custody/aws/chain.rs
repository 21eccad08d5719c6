//! Region and credentials by the SDK's own chain: instance, web identity, container, profile, role; and none.

use std::{
    fs,
    path::Path,
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    extract::State,
    http::{HeaderMap, StatusCode},
    routing::{get, put},
};
use bitcoin::secp256k1::PublicKey;
use holdfast_signer::{
    config::{AwsKmsCustody, CustodyConfig},
    custody,
};
use serde_json::{Value, json};
use tokio::{net::TcpListener, runtime::Runtime};

use crate::{
    moto::{Moto, REGION},
    proxy::{Call, Proxy},
    suite::{NETWORK, assert_unavailable, assert_wrong},
    world::{World, in_its_own_process, keys},
};

/// Seals a seed and opens it again; the calls that the second one made.
fn calls_of_a_start(config: AwsKmsCustody, data_dir: &Path, proxy: &Proxy) -> Vec<Call> {
    let config = CustodyConfig::AwsKms(config);
    let node_id: PublicKey = custody::init(&config, NETWORK, data_dir).unwrap().identity().public_key();
    proxy.calls();
    custody::open(&config, NETWORK, data_dir, &node_id).unwrap().self_test().unwrap();
    proxy.calls()
}

/// An EC2 instance that only speaks IMDSv2: no token, no answer.
#[test]
fn an_instance_gives_credentials_and_region() {
    let variables = |_: &Path, port: u16| {
        vec![
            ("AWS_EC2_METADATA_DISABLED", "false".to_owned()),
            ("AWS_EC2_METADATA_SERVICE_ENDPOINT", format!("http://127.0.0.1:{port}")),
        ]
    };
    in_its_own_process("chain::an_instance_gives_credentials_and_region", variables, |directory, port| {
        let instance = Instance::start(port);
        let moto = Moto::start();
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let world = World::before(directory, moto, free);
        let calls = calls_of_a_start(world.kms(&world.moto.key()), &world.directory("data"), &world.proxy);
        assert_eq!(calls.iter().map(|call| &*call.name).collect::<Vec<_>>(), ["Decrypt"]);
        assert_eq!(calls[0].signer.as_deref(), Some("ASIAINSTANCE"));
        let asked = instance.asked.lock().unwrap();
        assert!(asked.contains(&"region") && asked.contains(&"role"), "{asked:?}");
        assert!(!asked.contains(&"no token"), "IMDSv1 was tried: {asked:?}");
    });
}

struct Instance {
    asked: Arc<Mutex<Vec<&'static str>>>,
    _runtime: Runtime,
}

impl Instance {
    fn start(port: u16) -> Self {
        type Asked = State<Arc<Mutex<Vec<&'static str>>>>;
        fn with_token(asked: &Asked, headers: &HeaderMap, what: &'static str) -> Result<(), StatusCode> {
            let token = headers.get("x-aws-ec2-metadata-token").is_some_and(|token| token == "session-token");
            asked.lock().unwrap().push(if token { what } else { "no token" });
            if token { Ok(()) } else { Err(StatusCode::UNAUTHORIZED) }
        }
        let asked = Arc::new(Mutex::new(Vec::new()));
        let router = Router::new()
            .route(
                "/latest/api/token",
                put(|headers: HeaderMap| async move {
                    let ttl =
                        headers.get("x-aws-ec2-metadata-token-ttl-seconds").cloned().ok_or(StatusCode::BAD_REQUEST)?;
                    Ok::<_, StatusCode>(([("x-aws-ec2-metadata-token-ttl-seconds", ttl)], "session-token"))
                }),
            )
            .route(
                "/latest/meta-data/placement/region",
                get(|asked: Asked, headers: HeaderMap| async move {
                    with_token(&asked, &headers, "region").map(|()| REGION)
                }),
            )
            .route(
                "/latest/meta-data/iam/security-credentials/",
                get(|asked: Asked, headers: HeaderMap| async move {
                    with_token(&asked, &headers, "roles").map(|()| "holdfast-signer")
                }),
            )
            .route(
                "/latest/meta-data/iam/security-credentials/holdfast-signer",
                get(|asked: Asked, headers: HeaderMap| async move {
                    with_token(&asked, &headers, "role").map(|()| instance_credentials().to_string())
                }),
            )
            .with_state(asked.clone());
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(TcpListener::bind(("127.0.0.1", port))).unwrap();
        runtime.spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { asked, _runtime: runtime }
    }
}

fn instance_credentials() -> Value {
    json!({
        "Code": "Success",
        "Type": "AWS-HMAC",
        "LastUpdated": "2026-01-01T00:00:00Z",
        "Expiration": "2099-01-01T00:00:00Z",
        "AccessKeyId": "ASIAINSTANCE",
        "SecretAccessKey": "secret",
        "Token": "token",
    })
}

/// A pod of EKS, or any workload with an OIDC token: moto's STS gives a role's credentials for it.
#[test]
fn a_web_identity_gives_credentials() {
    let variables = |directory: &Path, port: u16| {
        let token = directory.join("token");
        // Nobody checks its signature here.
        fs::write(&token, "eyJhbGciOiJub25lIn0.eyJzdWIiOiJob2xkZmFzdCJ9.").unwrap();
        vec![
            ("AWS_WEB_IDENTITY_TOKEN_FILE", token.display().to_string()),
            ("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/holdfast-signer".to_owned()),
            ("AWS_ENDPOINT_URL_STS", format!("http://127.0.0.1:{port}")),
            ("AWS_REGION", REGION.to_owned()),
        ]
    };
    in_its_own_process("chain::a_web_identity_gives_credentials", variables, |directory, port| {
        let world = World::new(directory, port);
        let calls = calls_of_a_start(world.kms(&world.moto.key()), &world.directory("data"), &world.proxy);
        let names: Vec<_> = calls.iter().map(|call| &*call.name).collect();
        assert_eq!(names, ["AssumeRoleWithWebIdentity", "Decrypt"]);
        // Without credentials of its own it asked for those of the role.
        assert_eq!(calls[0].signer, None);
        assert!(calls[1].signer.as_ref().unwrap().starts_with("ASIA"), "{:?}", calls[1].signer);
    });
}

/// A profile of the shared files, whose role is assumed with the keys of another profile.
#[test]
fn a_profile_gives_region_credentials_and_role() {
    let variables = |directory: &Path, port: u16| {
        let (config, credentials) = (directory.join("config"), directory.join("credentials"));
        let role = "role_arn = arn:aws:iam::123456789012:role/holdfast-signer\nsource_profile = machine\n";
        fs::write(
            &config,
            format!("[profile holdfast]\nregion = {REGION}\n{role}[profile plain]\nregion = {REGION}\n"),
        )
        .unwrap();
        let keys = |profile: &str, id: &str| {
            format!("[{profile}]\naws_access_key_id = {id}\naws_secret_access_key = secret\n")
        };
        fs::write(&credentials, keys("machine", "AKIAMACHINE") + &keys("plain", "AKIAPLAIN")).unwrap();
        vec![
            ("AWS_CONFIG_FILE", config.display().to_string()),
            ("AWS_SHARED_CREDENTIALS_FILE", credentials.display().to_string()),
            ("AWS_ENDPOINT_URL_STS", format!("http://127.0.0.1:{port}")),
        ]
    };
    in_its_own_process("chain::a_profile_gives_region_credentials_and_role", variables, |directory, port| {
        let world = World::new(directory, port);
        let key = world.moto.key();
        let start = |profile: &str| {
            let config = AwsKmsCustody { profile: Some(profile.to_owned()), ..world.kms(&key) };
            calls_of_a_start(config, &world.directory(profile), &world.proxy)
        };
        let calls = start("plain");
        assert_eq!((calls.len(), calls[0].signer.as_deref()), (1, Some("AKIAPLAIN")));
        let calls = start("holdfast");
        assert_eq!(calls.iter().map(|call| &*call.name).collect::<Vec<_>>(), ["AssumeRole", "Decrypt"]);
        assert_eq!(calls[0].signer.as_deref(), Some("AKIAMACHINE"));
        assert!(calls[1].signer.as_ref().unwrap().starts_with("ASIA"));

        let missing = AwsKmsCustody { profile: Some("nobody".into()), region: Some(REGION.into()), ..world.kms(&key) };
        let why = assert_wrong(custody::init(&CustodyConfig::AwsKms(missing), NETWORK, directory), "no profile");
        assert!(why.contains("profile `nobody` was not defined"), "{why}");
    });
}

#[test]
fn without_credentials_nothing_is_asked() {
    let variables = |_: &Path, _: u16| vec![("AWS_REGION", REGION.to_owned())];
    in_its_own_process("chain::without_credentials_nothing_is_asked", variables, |directory, port| {
        let world = World::new(directory, port);
        let config = CustodyConfig::AwsKms(world.kms(&world.moto.key()));
        let why = assert_unavailable(custody::init(&config, NETWORK, &world.directory("data")), "no credentials");
        assert!(why.contains("no AWS credentials in environment, profile"), "{why}");
        assert!(world.proxy.calls().is_empty());
    });
}

#[test]
fn without_a_region_nothing_is_asked() {
    let variables = |_: &Path, _: u16| keys().into_iter().filter(|(name, _)| *name != "AWS_REGION").collect();
    in_its_own_process("chain::without_a_region_nothing_is_asked", variables, |directory, port| {
        let world = World::new(directory, port);
        let key = world.moto.key();
        let init = |config| custody::init(&CustodyConfig::AwsKms(config), NETWORK, &world.directory("data"));
        let why = assert_wrong(init(world.kms(&key)), "no region");
        assert!(why.contains("no AWS region: set region"), "{why}");
        assert!(world.proxy.calls().is_empty());
        init(AwsKmsCustody { region: Some(REGION.into()), ..world.kms(&key) }).unwrap();
    });
}
