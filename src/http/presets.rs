//! Presets: providers whose secret has a known name.

use actix_web::HttpResponse;
use serde::Serialize;

use super::{
    envelope::ItemKind,
    error::ApiError,
    fields::{Faults, Fields},
    json,
    request::{Call, HandlerResult},
    secrets,
};
use crate::{
    domain::{Provider, SecretName, SecretValue},
    settings::Preset,
};

/// `GET /api/v1/user/secrets/presets`
pub(super) async fn list(call: Call<'_>) -> HandlerResult {
    let names = call.state.reader.names(&call.owner).await?;
    let presets = &call.state.settings.presets;
    let presets = presets
        .iter()
        .map(|preset| ProviderPreset {
            configured: call.covers(&preset.name) && names.contains(&preset.name),
            provider: &preset.provider,
            env_var_name: &preset.name,
        })
        .collect();
    let list = ProviderPresetList { presets };
    json(&mut HttpResponse::Ok(), &list)
}

/// `POST /api/v1/user/secrets/preset`
pub(super) async fn create(mut call: Call<'_>) -> HandlerResult {
    call.json_only()?;
    call.idempotency_key()?;
    let fields = call.object(&["provider", "value"]).await?;
    let presets = &call.state.settings.presets;
    let ((provider, name), value) = new_secret(fields, presets)?;
    secrets::create_as(&call, name, Some(provider), value).await
}

/// A preset.
#[derive(Debug, Serialize)]
pub(super) struct ProviderPreset<'a> {
    /// The provider.
    provider: &'a Provider,
    /// The name of its secret.
    env_var_name: &'a SecretName,
    /// The caller has a secret of that name.
    configured: bool,
}

/// All presets, in a fixed order.
#[derive(Debug, Serialize)]
pub(super) struct ProviderPresetList<'a> {
    /// The presets.
    presets: Vec<ProviderPreset<'a>>,
}

/// Reads the body of `create_secret_from_preset`: the provider with the name that goes with it, and the value.
fn new_secret(
    mut fields: Fields,
    presets: &[Preset],
) -> Result<((Provider, SecretName), SecretValue), ApiError> {
    let mut faults = Faults::default();
    let provider = fields.required("provider", &mut faults, |text| preset(&text, presets));
    let value = fields.required("value", &mut faults, SecretValue::parse);
    provider.zip(value).ok_or_else(|| faults.into())
}

/// The preset of a provider.
fn preset(text: &str, presets: &[Preset]) -> Result<(Provider, SecretName), ItemKind> {
    let provider = Provider::parse(text)?;
    let preset = presets.iter().find(|preset| preset.provider == provider);
    let name = preset.ok_or(ItemKind::Enum)?.name.clone();
    Ok((provider, name))
}
