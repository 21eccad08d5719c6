//! One conversation with AWS: region and credentials by the SDK's own chain, its own retries, one deadline for all of it.
//!
//! Custody is asked from threads that may wait, within a runtime or without. The SDK gets a thread and a small runtime of
//! its own, which end with the conversation.

use std::{
    error::Error,
    panic,
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};

use aws_config::{
    AppName, BehaviorVersion, Region, SdkConfig, default_provider::region::DefaultRegionChain, retry::RetryConfig,
    timeout::TimeoutConfig,
};
use aws_credential_types::{
    Credentials,
    provider::{ProvideCredentials, error::CredentialsError},
};
use aws_sdk_kms::{
    config::{
        ConfigBag, Intercept, RuntimeComponents, SharedCredentialsProvider,
        interceptors::{BeforeTransmitInterceptorContextRef, FinalizerInterceptorContextRef},
    },
    error::BoxError,
};
use tokio::{runtime, time};

use super::{
    AwsAccess,
    error::{check_endpoint, one_line},
};
use crate::custody::CustodyError;

/// The deadline ends the retries; this only has to be more than fit into it.
const MAX_ATTEMPTS: u32 = 1_000;
const FIRST_BACKOFF: Duration = Duration::from_millis(100);
const LONGEST_BACKOFF: Duration = Duration::from_secs(5);
/// A call without an answer is asked again after this time, or after a third of the deadline.
const LONGEST_ATTEMPT: Duration = Duration::from_secs(10);

pub struct Session {
    config: SdkConfig,
    endpoint: Option<String>,
    region: String,
    last_failure: LastFailure,
}

/// Runs `work` in a session with `service`, for as long as `access` allows.
pub fn run<T: Send>(
    service: &str,
    access: &AwsAccess,
    work: impl AsyncFnOnce(&Session) -> Result<T, CustodyError> + Send,
) -> Result<T, CustodyError> {
    let last_failure = LastFailure::default();
    let conversation = || {
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|e| CustodyError::Unavailable(format!("no runtime for {service}: {e}")))?;
        let done = runtime.block_on(async {
            let conversation = async {
                let session = Session::start(access, last_failure.clone()).await?;
                work(&session).await
            };
            time::timeout(access.timeout, conversation).await
        });
        // A name that is still being looked up would hold a patient end.
        runtime.shutdown_background();
        done.unwrap_or_else(|_| {
            let why = last_failure.get().map_or(String::new(), |why| format!("; the last try failed: {why}"));
            let ms = access.timeout.as_millis();
            Err(CustodyError::Unavailable(format!("{service} gave no answer within {ms} ms{why}")))
        })
    };
    thread::scope(|scope| {
        let thread = thread::Builder::new()
            .name("aws".into())
            .spawn_scoped(scope, conversation)
            .map_err(|e| CustodyError::Unavailable(format!("no thread for {service}: {e}")))?;
        thread.join().unwrap_or_else(|panicked| panic::resume_unwind(panicked))
    })
}

impl Session {
    async fn start(access: &AwsAccess, last_failure: LastFailure) -> Result<Self, CustodyError> {
        let region = region(access).await?;
        let attempt = LONGEST_ATTEMPT.min(access.timeout / 3);
        // A version by its name: what a later one changes is changed here, not by an update.
        let mut loader = aws_config::defaults(BehaviorVersion::v2026_01_12())
            .app_name(AppName::new("holdfast-signer").map_err(|e| CustodyError::Wrong(e.to_string()))?)
            .region(Region::new(region.clone()))
            .retry_config(
                RetryConfig::standard()
                    .with_max_attempts(MAX_ATTEMPTS)
                    .with_initial_backoff(FIRST_BACKOFF)
                    .with_max_backoff(LONGEST_BACKOFF),
            )
            .timeout_config(TimeoutConfig::builder().operation_attempt_timeout(attempt).build());
        if let Some(profile) = &access.profile {
            loader = loader.profile_name(profile);
        }
        let config = loader.load().await;
        // Once, and before any call: an error here is about credentials and nothing else.
        let credentials = credentials(&config).await?;
        let config = config.into_builder().credentials_provider(SharedCredentialsProvider::new(credentials)).build();
        Ok(Self { config, endpoint: access.endpoint.clone(), region, last_failure })
    }

    pub fn kms(&self) -> aws_sdk_kms::Client {
        let mut config = aws_sdk_kms::config::Builder::from(&self.config)
            .interceptor(NotInTheClear)
            .interceptor(self.last_failure.clone());
        if let Some(endpoint) = &self.endpoint {
            config = config.endpoint_url(endpoint);
        }
        aws_sdk_kms::Client::from_conf(config.build())
    }

    pub fn secrets_manager(&self) -> aws_sdk_secretsmanager::Client {
        let mut config = aws_sdk_secretsmanager::config::Builder::from(&self.config)
            .interceptor(NotInTheClear)
            .interceptor(self.last_failure.clone());
        if let Some(endpoint) = &self.endpoint {
            config = config.endpoint_url(endpoint);
        }
        aws_sdk_secretsmanager::Client::from_conf(config.build())
    }

    /// `subject` lies in a region of its own, and another region's service does not know it.
    pub fn check_region(&self, subject: &str, region: &str) -> Result<(), CustodyError> {
        match region == self.region {
            true => Ok(()),
            false => Err(CustodyError::Wrong(format!(
                "{subject} is in region {region}, and the signer asks in {}: set region = \"{region}\"",
                self.region
            ))),
        }
    }
}

async fn region(access: &AwsAccess) -> Result<String, CustodyError> {
    if let Some(region) = &access.region {
        return Ok(region.clone());
    }
    let mut chain = DefaultRegionChain::builder();
    if let Some(profile) = &access.profile {
        chain = chain.profile_name(profile);
    }
    let found = chain.build().region().await.map(|region| region.to_string()).filter(|region| !region.is_empty());
    found.ok_or_else(|| {
        let why = "no AWS region: set region in the backend's table, AWS_REGION, or region in the profile";
        CustodyError::Wrong(why.into())
    })
}

async fn credentials(config: &SdkConfig) -> Result<Credentials, CustodyError> {
    let provider = config.credentials_provider().ok_or_else(|| no_credentials("no provider"))?;
    provider.provide_credentials().await.map_err(|error| match &error {
        CredentialsError::InvalidConfiguration(_) => {
            CustodyError::Wrong(format!("AWS credentials are configured wrongly: {}", one_line(&error)))
        }
        CredentialsError::CredentialsNotLoaded(_) => no_credentials(one_line(&error)),
        _ => CustodyError::Unavailable(format!("AWS credentials could not be loaded: {}", one_line(&error))),
    })
}

fn no_credentials(why: impl std::fmt::Display) -> CustodyError {
    CustodyError::Unavailable(format!(
        "no AWS credentials in environment, profile, web identity, container or instance metadata: {why}"
    ))
}

/// Why the last try of a call failed: what a deadline would hide.
#[derive(Clone, Debug, Default)]
struct LastFailure(Arc<Mutex<Option<String>>>);

impl LastFailure {
    fn get(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Lets nothing out that others on the network could read, wherever the endpoint comes from.
#[derive(Clone, Copy, Debug)]
struct NotInTheClear;

impl Intercept for NotInTheClear {
    fn name(&self) -> &'static str {
        "holdfast-not-in-the-clear"
    }

    fn read_before_transmit(
        &self,
        context: &BeforeTransmitInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        Ok(check_endpoint(context.request().uri())?)
    }
}

impl Intercept for LastFailure {
    fn name(&self) -> &'static str {
        "holdfast-last-failure"
    }

    fn read_after_attempt(
        &self,
        context: &FinalizerInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let failure = match context.output_or_error() {
            Some(Err(error)) => Some(one_line(error as &dyn Error)),
            _ => None,
        };
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = failure;
        Ok(())
    }
}
