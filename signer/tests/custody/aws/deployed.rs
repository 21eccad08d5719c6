//! The templates of deploy/aws, deployed: what their roles may do is what the signer needs, and no more.

use std::{fs, path::PathBuf, process::Command};

use aws_sdk_kms::config::{BehaviorVersion, Credentials, Region, SharedCredentialsProvider};
use bitcoin::secp256k1::PublicKey;
use holdfast_signer::{config::CustodyConfig, custody};

use crate::{
    moto::{self, Moto, REGION},
    suite::{NETWORK, assert_unavailable},
    world::{World, in_its_own_process},
};

fn template(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "..", "deploy", "aws", name].iter().collect()
}

#[test]
fn the_templates_are_valid() {
    let lint = PathBuf::from(moto::program()).with_file_name("cfn-lint");
    let checked = Command::new(lint).args([template("kms.yaml"), template("secretsmanager.yaml")]).output().unwrap();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stdout));
}

fn between<'a>(text: &'a str, start: &str, end: &str) -> &'a str {
    let from = text.find(start).unwrap_or_else(|| panic!("no {start} in {text}")) + start.len();
    let length = text[from..].find(end).unwrap();
    &text[from..from + length]
}

impl Moto {
    fn stack(&self, name: &str) -> String {
        // moto knows no resources of KMS: to it every call is about all of them.
        let body = fs::read_to_string(template(name)).unwrap();
        let body = body.replace("Resource: !GetAtt SealingKey.Arn", "Resource: \"*\"");
        let network =
            [("Parameters.member.1.ParameterKey", "Network"), ("Parameters.member.1.ParameterValue", "regtest")];
        let create = [("Action", "CreateStack"), ("StackName", "holdfast"), ("TemplateBody", &body)];
        self.query("cloudformation", &[&create[..], &network].concat());
        self.query("cloudformation", &[("Action", "DescribeStacks"), ("StackName", "holdfast")])
    }

    /// A shared credentials file with a profile for each role.
    fn assume(&self, profile: &str, role: &str) -> String {
        let assume = [("Action", "AssumeRole"), ("RoleArn", role), ("RoleSessionName", "holdfast")];
        let got = self.query("sts", &[&assume[..], &[("Version", "2011-06-15")]].concat());
        let field = |name: &str| between(&got, &format!("<{name}>"), "<").to_owned();
        format!(
            "[{profile}]\naws_access_key_id = {}\naws_secret_access_key = {}\naws_session_token = {}\n",
            field("AccessKeyId"),
            field("SecretAccessKey"),
            field("SessionToken")
        )
    }
}

fn output<'a>(stack: &'a str, key: &str) -> &'a str {
    between(&stack[stack.find(&format!("<OutputKey>{key}<")).unwrap()..], "<OutputValue>", "<")
}

/// moto judges by the actions in the roles' own policies; by their resources, conditions and the key's policy it does not.
#[test]
fn the_roles_of_the_kms_template_suffice_and_no_more() {
    let variables = |directory: &std::path::Path, _: u16| {
        let file = directory.join("credentials").display().to_string();
        vec![("AWS_SHARED_CREDENTIALS_FILE", file), ("AWS_REGION", REGION.to_owned())]
    };
    in_its_own_process("deployed::the_roles_of_the_kms_template_suffice_and_no_more", variables, |directory, port| {
        let world = World::new(directory, port);
        let stack = world.moto.stack("kms.yaml");
        let key = output(&stack, "KeyArn");
        let profiles = world.moto.assume("init", output(&stack, "InitRoleArn"))
            + &world.moto.assume("run", output(&stack, "SignerRoleArn"));
        fs::write(directory.join("credentials"), profiles).unwrap();
        world.moto.enforce_policies();

        let data_dir = world.directory("data");
        let as_role = |profile: &str| {
            let mut config = world.kms(key);
            config.profile = Some(profile.to_owned());
            CustodyConfig::AwsKms(config)
        };
        assert_unavailable(custody::init(&as_role("run"), NETWORK, &data_dir), "sealing by the role that runs");
        let made = custody::init(&as_role("init"), NETWORK, &data_dir).unwrap();
        let node_id: PublicKey = made.identity().public_key();
        custody::open(&as_role("run"), NETWORK, &data_dir, &node_id).unwrap().self_test().unwrap();
        // An administrator without a role is nobody now.
        let nobody = Credentials::new("AKIANOBODY", "secret", None, None, "test");
        let config = aws_sdk_kms::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new(REGION))
            .credentials_provider(SharedCredentialsProvider::new(nobody))
            .endpoint_url(world.moto.url());
        let asked = aws_sdk_kms::Client::from_conf(config.build()).describe_key().key_id(key).send();
        let refusal = world.moto.block_on(asked).unwrap_err();
        assert_eq!(refusal.raw_response().map(|answer| answer.status().as_u16()), Some(403), "{refusal:?}");
    });
}
