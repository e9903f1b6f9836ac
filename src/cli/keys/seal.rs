//! `rekey keys seal|unseal`: a passphrase seals the keyring file.

use crate::{
    cli::{CommandError, say},
    crypto::Keyring,
    settings::Settings,
};

/// Seals the keyring file, or opens it for good.
pub(super) fn run(settings: &Settings, sealed: bool) -> Result<(), CommandError> {
    let keyring = &settings.keyring;
    if !keyring.keys.is_empty() {
        return Err("keyring.keys is set: there is no keyring file".into());
    }
    let passphrase = keyring.passphrase.as_ref();
    let passphrase = passphrase.ok_or("keyring.passphrase must be set")?;
    if sealed {
        Keyring::seal(&keyring.path, passphrase)?;
        say(
            "the keyring file is sealed; blocks of the disk, and backups, may still hold the open one",
        );
    } else {
        Keyring::unseal(&keyring.path, passphrase)?;
        say("the keyring file is open: unset keyring.passphrase");
    }
    Ok(())
}
