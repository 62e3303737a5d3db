//! The three services on the network, each through `object_store`'s builder.

use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use object_store::aws::{AmazonS3, AmazonS3Builder, AmazonS3ConfigKey, S3ConditionalPut};
use object_store::azure::{AzureConfigKey, MicrosoftAzure, MicrosoftAzureBuilder};
use object_store::gcp::{GoogleCloudStorage, GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::{ClientConfigKey, RetryConfig};

use super::Place;
use super::metadata::MachineCredentials;
use crate::error::StoreError;
use crate::options::StoreOptions;

/// `object_store` tries once: trying again is [`crate::retry`]'s business.
fn once() -> RetryConfig {
    RetryConfig { max_retries: 0, ..RetryConfig::default() }
}

pub(super) fn s3(
    place: &Place,
    bucket: &str,
    options: &StoreOptions,
) -> Result<AmazonS3, StoreError> {
    let refused = |error| refused(place, error);
    let mut builder = if options.reads_environment {
        AmazonS3Builder::from_env()
    } else {
        AmazonS3Builder::new()
    };
    for (key, value) in timeouts("AWS", options) {
        builder = builder.with_config(AmazonS3ConfigKey::Client(key), value);
    }
    for (key, value) in options.settings() {
        builder = builder.with_config(parse(place, key)?, value);
    }
    builder = builder
        .with_bucket_name(bucket)
        .with_conditional_put(S3ConditionalPut::ETagMatch)
        .with_retry(once());
    let is_set = |key| builder.get_config_value(&key).is_some();
    let endpoint = [AmazonS3ConfigKey::S3Endpoint, AmazonS3ConfigKey::Endpoint]
        .iter()
        .find_map(|key| builder.get_config_value(key));
    let allow_http = AmazonS3ConfigKey::Client(ClientConfigKey::AllowHttp);
    if endpoint.is_some_and(|endpoint| endpoint.starts_with("http://"))
        && builder.get_config_value(&allow_http).as_deref() != Some("true")
    {
        let reason = "its endpoint begins with `http://`, so what is sent can be read on the way; \
                      set AWS_ALLOW_HTTP=true if that is meant";
        return Err(StoreError::Unusable { uri: place.uri.to_string(), reason: reason.to_owned() });
    }
    let configured = [
        AmazonS3ConfigKey::AccessKeyId,
        AmazonS3ConfigKey::SecretAccessKey,
        AmazonS3ConfigKey::WebIdentityTokenFile,
        AmazonS3ConfigKey::ContainerCredentialsRelativeUri,
        AmazonS3ConfigKey::ContainerCredentialsFullUri,
    ];
    let anonymous = builder.get_config_value(&AmazonS3ConfigKey::SkipSignature);
    if configured.into_iter().any(is_set) || anonymous.as_deref() == Some("true") {
        return builder.build().map_err(refused);
    }
    let machine = Arc::clone(builder.clone().build().map_err(refused)?.credentials());
    let instead = "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY";
    let credentials = Arc::new(MachineCredentials::new(machine, instead));
    builder.with_credentials(credentials).build().map_err(refused)
}

pub(super) fn gs(
    place: &Place,
    bucket: &str,
    options: &StoreOptions,
) -> Result<GoogleCloudStorage, StoreError> {
    let refused = |error| refused(place, error);
    let mut builder = if options.reads_environment {
        GoogleCloudStorageBuilder::from_env()
    } else {
        GoogleCloudStorageBuilder::new()
    };
    for (key, value) in timeouts("GOOGLE", options) {
        builder = builder.with_config(GoogleConfigKey::Client(key), value);
    }
    for (key, value) in options.settings() {
        builder = builder.with_config(parse(place, key)?, value);
    }
    builder = builder.with_bucket_name(bucket).with_retry(once());
    let configured = [
        GoogleConfigKey::ServiceAccount,
        GoogleConfigKey::ServiceAccountKey,
        GoogleConfigKey::ApplicationCredentials,
        GoogleConfigKey::BearerToken,
    ];
    let anonymous = builder.get_config_value(&GoogleConfigKey::SkipSignature);
    // `gcloud auth application-default login` leaves this file.
    let by_gcloud = std::env::var_os("HOME").is_some_and(|home| {
        Path::new(&home).join(".config/gcloud/application_default_credentials.json").exists()
    });
    if by_gcloud
        || configured.iter().any(|key| builder.get_config_value(key).is_some())
        || anonymous.as_deref() == Some("true")
    {
        return builder.build().map_err(refused);
    }
    let machine = Arc::clone(builder.clone().build().map_err(refused)?.credentials());
    let instead = "GOOGLE_SERVICE_ACCOUNT and GOOGLE_APPLICATION_CREDENTIALS";
    let credentials = Arc::new(MachineCredentials::new(machine, instead));
    builder.with_credentials(credentials).build().map_err(refused)
}

pub(super) fn az(
    place: &Place,
    container: &str,
    options: &StoreOptions,
) -> Result<MicrosoftAzure, StoreError> {
    let refused = |error| refused(place, error);
    let mut builder = if options.reads_environment {
        MicrosoftAzureBuilder::from_env()
    } else {
        MicrosoftAzureBuilder::new()
    };
    for (key, value) in timeouts("AZURE", options) {
        builder = builder.with_config(AzureConfigKey::Client(key), value);
    }
    for (key, value) in options.settings() {
        builder = builder.with_config(parse(place, key)?, value);
    }
    builder = builder.with_container_name(container).with_retry(once());
    let configured = [
        AzureConfigKey::AccessKey,
        AzureConfigKey::ClientId,
        AzureConfigKey::SasKey,
        AzureConfigKey::Token,
        AzureConfigKey::FederatedTokenFile,
        AzureConfigKey::MsiEndpoint,
        AzureConfigKey::FabricTokenServiceUrl,
        AzureConfigKey::CredentialType,
    ];
    let is_true = |key| builder.get_config_value(&key).as_deref() == Some("true");
    if configured.iter().any(|key| builder.get_config_value(key).is_some())
        || is_true(AzureConfigKey::UseEmulator)
        || is_true(AzureConfigKey::UseAzureCli)
        || is_true(AzureConfigKey::SkipSignature)
    {
        return builder.build().map_err(refused);
    }
    let machine = Arc::clone(builder.clone().build().map_err(refused)?.credentials());
    let instead = "AZURE_STORAGE_ACCOUNT_KEY and AZURE_STORAGE_SAS_KEY";
    let credentials = Arc::new(MachineCredentials::new(machine, instead));
    builder.with_credentials(credentials).build().map_err(refused)
}

/// The timeouts, except those that the environment sets.
fn timeouts(
    service: &str,
    options: &StoreOptions,
) -> impl Iterator<Item = (ClientConfigKey, String)> {
    let all: [(_, Duration); 3] = [
        (ClientConfigKey::ConnectTimeout, options.connect_timeout),
        (ClientConfigKey::ReadTimeout, options.stall_timeout),
        (ClientConfigKey::Timeout, options.request_timeout),
    ];
    let service = service.to_owned();
    all.into_iter()
        .filter(move |(key, _)| {
            let variable = format!("{service}_{}", key.as_ref().to_uppercase());
            std::env::var_os(variable).is_none()
        })
        .map(|(key, time)| (key, format!("{}ms", time.as_millis())))
}

fn parse<K: FromStr<Err = object_store::Error>>(place: &Place, key: &str) -> Result<K, StoreError> {
    key.parse().map_err(|error| refused(place, error))
}

/// Settings that do not make a store.
fn refused(place: &Place, error: object_store::Error) -> StoreError {
    StoreError::Unusable { uri: place.uri.to_string(), reason: error.to_string() }
}
