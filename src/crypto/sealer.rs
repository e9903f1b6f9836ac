//! Sealing and opening of versions: envelope encryption under the keyring.

use zeroize::Zeroizing;

use super::{
    Keyring,
    checkpoint::CheckpointSigner,
    envelope::{self, AssociatedData, OpenError, Purpose, SealError, SecretKey},
    mac::MacKey,
};
use crate::domain::{
    KeyId, Mask, Owner, SealedMask, SealedVersion, SecretId, SecretValue, ServiceKeyName, VersionId,
};

/// The secret and the version that a value is bound to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SecretPlace<'a> {
    /// The secret's owner.
    pub owner: &'a Owner,
    /// The secret.
    pub secret_id: SecretId,
    /// The version.
    pub version_id: VersionId,
}

impl<'a> SecretPlace<'a> {
    /// What value and mask are bound to: not to the key-encryption key, so that a new key-encryption key needs
    /// no new ciphertext.
    fn data(&self, purpose: Purpose) -> AssociatedData<'a> {
        AssociatedData {
            purpose,
            owner: Some(self.owner.as_str()),
            secret_id: Some(self.secret_id.get().into_bytes()),
            version_id: Some(self.version_id.get().into_bytes()),
            kek_id: None,
            name: None,
        }
    }

    fn data_key(&self, kek_id: &'a KeyId) -> AssociatedData<'a> {
        AssociatedData {
            kek_id: Some(kek_id.as_str()),
            ..self.data(Purpose::DataKey)
        }
    }
}

/// Seals and opens under the keys of the keyring.
#[derive(Debug)]
pub(crate) struct Sealer {
    keyring: Keyring,
}

impl Sealer {
    /// A sealer that holds these keys.
    #[must_use]
    pub(crate) fn new(keyring: Keyring) -> Self {
        Self { keyring }
    }

    /// Seals a value and its mask as a version, under a fresh data key that `kek_id` wraps. The value is
    /// wiped.
    ///
    /// # Errors
    /// [`SealError`]: no randomness, or a keyring without that key.
    pub(crate) fn seal(
        &self,
        kek_id: &KeyId,
        place: SecretPlace<'_>,
        value: SecretValue,
        mask: &Mask,
    ) -> Result<SealedVersion, SealError> {
        let kek = self.keyring.to_seal(kek_id)?;
        let data_key = SecretKey::generate()?;
        let key_bytes: &[u8] = data_key.unprotected_as_ref();
        let wrapped_key = envelope::seal(kek, place.data_key(kek_id), key_bytes)?;
        let value_bytes = value.expose().as_bytes();
        let sealed_value = envelope::seal(&data_key, place.data(Purpose::Value), value_bytes)?;
        drop(value);
        let mask_bytes = mask.as_str().as_bytes();
        let sealed_mask = envelope::seal(&data_key, place.data(Purpose::Mask), mask_bytes)?;
        Ok(SealedVersion {
            version_id: place.version_id,
            kek_id: kek_id.clone(),
            wrapped_key,
            sealed_value,
            sealed_mask,
        })
    }

    /// Opens a version's mask.
    ///
    /// # Errors
    /// [`OpenError`] when any part was damaged or moved, or the key is not in the keyring.
    pub(crate) fn open_mask(
        &self,
        owner: &Owner,
        secret_id: SecretId,
        sealed: &SealedMask,
    ) -> Result<Mask, OpenError> {
        let version_id = sealed.version_id;
        let place = SecretPlace {
            owner,
            secret_id,
            version_id,
        };
        let data_key = self.data_key(place, &sealed.kek_id, &sealed.wrapped_key)?;
        let text = envelope::open(&data_key, place.data(Purpose::Mask), &sealed.sealed_mask)?;
        Ok(Mask::from_opened(into_text(text)?.to_string()))
    }

    /// Opens a version's value.
    ///
    /// # Errors
    /// [`OpenError`] when any part was damaged or moved, or the key is not in the keyring.
    pub(crate) fn open_value(
        &self,
        owner: &Owner,
        secret_id: SecretId,
        sealed: &SealedVersion,
    ) -> Result<SecretValue, OpenError> {
        let version_id = sealed.version_id;
        let place = SecretPlace {
            owner,
            secret_id,
            version_id,
        };
        let data_key = self.data_key(place, &sealed.kek_id, &sealed.wrapped_key)?;
        let text = envelope::open(&data_key, place.data(Purpose::Value), &sealed.sealed_value)?;
        // Whichever rule the decrypted value breaks, the row is damaged.
        SecretValue::parse(into_text(text)?).or(Err(OpenError::Content))
    }

    /// A fresh key of the service's own: 32 random bytes, sealed under `kek_id` and bound to their name.
    ///
    /// # Errors
    /// [`SealError`]: no randomness, or a keyring without that key.
    pub(crate) fn generate_service_key(
        &self,
        kek_id: &KeyId,
        name: ServiceKeyName,
    ) -> Result<Vec<u8>, SealError> {
        let kek = self.keyring.to_seal(kek_id)?;
        let key = SecretKey::generate()?;
        let data = AssociatedData::of_key(Purpose::ServiceKey, kek_id, Some(name.as_str()));
        envelope::seal(kek, data, key.unprotected_as_ref())
    }

    /// The signer of checkpoints, from the sealed service key of that name.
    ///
    /// # Errors
    /// [`OpenError`] when it was damaged or moved, or the key is not in the keyring.
    pub(crate) fn checkpoint_signer(
        &self,
        kek_id: &KeyId,
        sealed: &[u8],
    ) -> Result<CheckpointSigner, OpenError> {
        let seed = self.service_key(kek_id, ServiceKeyName::CheckpointSigning, sealed)?;
        CheckpointSigner::from_seed(&seed).ok_or(OpenError::Content)
    }

    /// A key of MACs, from the sealed service key of that name.
    ///
    /// # Errors
    /// [`OpenError`] when it was damaged or moved, or the key is not in the keyring.
    pub(crate) fn mac_key(
        &self,
        kek_id: &KeyId,
        name: ServiceKeyName,
        sealed: &[u8],
    ) -> Result<MacKey, OpenError> {
        let bytes = self.service_key(kek_id, name, sealed)?;
        MacKey::from_bytes(&bytes).ok_or(OpenError::Content)
    }

    fn service_key(
        &self,
        kek_id: &KeyId,
        name: ServiceKeyName,
        sealed: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, OpenError> {
        let kek = self.keyring.to_open(kek_id)?;
        let data = AssociatedData::of_key(Purpose::ServiceKey, kek_id, Some(name.as_str()));
        envelope::open(kek, data, sealed)
    }

    fn data_key(
        &self,
        place: SecretPlace<'_>,
        kek_id: &KeyId,
        wrapped_key: &[u8],
    ) -> Result<SecretKey, OpenError> {
        let kek = self.keyring.to_open(kek_id)?;
        let bytes = envelope::open(kek, place.data_key(kek_id), wrapped_key)?;
        // orion's one error says nothing more.
        SecretKey::try_from(bytes.as_slice()).or(Err(OpenError::Content))
    }
}

fn into_text(mut bytes: Zeroizing<Vec<u8>>) -> Result<Zeroizing<String>, OpenError> {
    // The error holds the bytes, which are secret.
    String::from_utf8(std::mem::take(&mut *bytes))
        .map(Zeroizing::new)
        .or(Err(OpenError::Content))
}

#[cfg(test)]
mod tests {
    use base64::{Engine, engine::general_purpose::STANDARD};
    use uuid::Uuid;

    use super::*;

    const VALUE: &str = "sk-proj-0123456789abcdefghijkl";

    fn sealer() -> Sealer {
        let list: Vec<String> = [("a", 1), ("b", 2)]
            .map(|(id, byte)| format!("{id}:{}", STANDARD.encode([byte; 32])))
            .into();
        Sealer::new(Keyring::from_list(list.iter().map(String::as_str)).unwrap())
    }

    fn sealed(kek_id: &str, version: u128) -> SealedVersion {
        let value = SecretValue::parse(VALUE.to_owned().into()).unwrap();
        let mask = Mask::of(&value);
        let place = SecretPlace {
            owner: &Owner::parse("alice").unwrap(),
            secret_id: SecretId::new(Uuid::from_u128(1)),
            version_id: VersionId::new(Uuid::from_u128(version)),
        };
        sealer()
            .seal(&KeyId::parse(kek_id).unwrap(), place, value, &mask)
            .unwrap()
    }

    /// Both parts open, or neither does.
    fn opens(sealer: &Sealer, owner: &str, secret: u128, version: &SealedVersion) -> bool {
        let (owner, id) = (
            Owner::parse(owner).unwrap(),
            SecretId::new(Uuid::from_u128(secret)),
        );
        let mask = SealedMask {
            version_id: version.version_id,
            kek_id: version.kek_id.clone(),
            wrapped_key: version.wrapped_key.clone(),
            sealed_mask: version.sealed_mask.clone(),
        };
        let value = sealer.open_value(&owner, id, version);
        let mask = sealer.open_mask(&owner, id, &mask);
        if let Ok(value) = &value {
            assert_eq!(value.expose(), VALUE);
        }
        if let Ok(mask) = &mask {
            assert_eq!(mask.as_str(), "sk-pro••••jkl");
        }
        value.is_ok() && mask.is_ok()
    }

    #[test]
    fn a_version_opens_only_with_its_own_associated_data() {
        let sealer = sealer();
        let one = sealed("a", 1);
        assert!(opens(&sealer, "alice", 1, &one));
        assert!(!opens(&sealer, "bob", 1, &one));
        assert!(!opens(&sealer, "alice", 2, &one));
    }

    #[test]
    fn no_part_can_be_swapped_between_two_versions() {
        let sealer = sealer();
        let one = sealed("a", 1);
        let other = sealed("b", 2);
        assert_eq!(other.kek_id.as_str(), "b");
        let swaps: [fn(&mut SealedVersion, SealedVersion); 7] = [
            |one, other| one.version_id = other.version_id,
            |one, other| one.kek_id = other.kek_id,
            |one, other| one.wrapped_key = other.wrapped_key,
            |one, other| one.sealed_value = other.sealed_value,
            |one, other| one.sealed_mask = other.sealed_mask,
            |one, _| one.sealed_value.clone_from(&one.sealed_mask),
            |one, _| one.sealed_mask.clone_from(&one.sealed_value),
        ];
        for swap in swaps {
            let mut swapped = one.clone();
            swap(&mut swapped, other.clone());
            assert!(!opens(&sealer, "alice", 1, &swapped));
        }
    }

    #[test]
    fn no_bit_of_a_sealed_part_can_be_flipped() {
        let sealer = sealer();
        let one = sealed("a", 1);
        let parts: [fn(&mut SealedVersion) -> &mut Vec<u8>; 3] = [
            |v| &mut v.wrapped_key,
            |v| &mut v.sealed_value,
            |v| &mut v.sealed_mask,
        ];
        for part in parts {
            let bits = part(&mut one.clone()).len() * 8;
            for bit in 0..bits {
                let mut damaged = one.clone();
                part(&mut damaged)[bit / 8] ^= 1 << (bit % 8);
                assert!(!opens(&sealer, "alice", 1, &damaged));
            }
        }
    }

    #[test]
    fn a_service_key_opens_only_under_its_own_key_and_name() {
        let sealer = sealer();
        let (a, b) = (KeyId::parse("a").unwrap(), KeyId::parse("b").unwrap());
        let name = ServiceKeyName::CheckpointSigning;
        let bytes = sealer.generate_service_key(&a, name).unwrap();
        let signer = sealer.checkpoint_signer(&a, &bytes).unwrap();
        let again = sealer.checkpoint_signer(&a, &bytes).unwrap();
        assert_eq!(signer.public_key(), again.public_key());
        assert_eq!(
            sealer.checkpoint_signer(&b, &bytes).unwrap_err(),
            OpenError::Refused
        );
        let other = sealer
            .generate_service_key(&a, ServiceKeyName::Idempotency)
            .unwrap();
        assert_eq!(
            sealer.checkpoint_signer(&a, &other).unwrap_err(),
            OpenError::Refused
        );
        assert_eq!(
            sealer
                .mac_key(&a, ServiceKeyName::TokenMac, &bytes)
                .unwrap_err(),
            OpenError::Refused
        );
    }

    #[test]
    fn a_missing_key_is_named() {
        let (owner, id) = (
            Owner::parse("alice").unwrap(),
            SecretId::new(Uuid::from_u128(1)),
        );
        let mut one = sealed("a", 1);
        one.kek_id = KeyId::parse("gone").unwrap();
        let error = sealer().open_value(&owner, id, &one).unwrap_err();
        assert_eq!(error.to_string(), "key gone is not in the keyring");
    }
}
