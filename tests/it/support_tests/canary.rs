use crate::support::canary::Canary;
use crate::support::folder::Folder;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};

const VALUE: &str = "sk-live-7f?>Qz0vL8dYxW3uTnRb5KcHpJ";

fn encodings(text: &[u8]) -> Vec<&'static str> {
    Canary::new(VALUE)
        .look_in("bytes", text)
        .into_iter()
        .map(|sighting| sighting.encoding)
        .collect()
}

#[test]
fn ten_characters_in_a_row_are_found_in_the_clear_and_nine_are_not() {
    assert_eq!(encodings(b"...Qz0vL8dYxW..."), ["in the clear"]);
    assert!(encodings(b"...Qz0vL8dYx...").is_empty());
}

#[test]
fn a_value_is_found_in_base64_and_hex_wherever_it_begins() {
    for before in 0..4 {
        let plain = [
            b"{\"v\":\"".get(..before).unwrap(),
            VALUE.as_bytes(),
            b"\"}",
        ]
        .concat();
        for text in [
            STANDARD.encode(&plain),
            URL_SAFE.encode(&plain),
            hex::encode(&plain),
            hex::encode_upper(&plain),
        ] {
            assert!(!encodings(text.as_bytes()).is_empty(), "{text}");
        }
    }
}

#[test]
fn one_window_in_base64_is_found_at_every_alignment() {
    for before in 0..3 {
        let text =
            STANDARD.encode([&b"\xff\xff\xff"[..before], b"Qz0vL8dYxW", b"\xff\xff"].concat());
        assert!(!encodings(text.as_bytes()).is_empty(), "{before}: {text}");
    }
}

#[test]
fn a_mask_is_no_sighting() {
    assert!(encodings("sk-liv••••HpJ".as_bytes()).is_empty());
    // Ten bytes may be three characters, and the mask shows six.
    let wide = "𝒜𝒷𝒞𝒟ℯ𝒻0123456789abcdefghijklmnop";
    let canary = Canary::new(wide);
    assert!(
        canary
            .look_in("mask", "𝒜𝒷𝒞𝒟ℯ𝒻••••nop".as_bytes())
            .is_empty()
    );
    assert!(
        !canary
            .look_in("more than the mask", "𝒟ℯ𝒻0123".as_bytes())
            .is_empty()
    );
}

#[test]
fn a_planted_value_is_found_below_a_folder() {
    let (folder, canary) = (Folder::new("canary"), Canary::fresh());
    std::fs::create_dir_all(folder.join("a/b")).unwrap();
    std::fs::write(
        folder.join("a/b/wal"),
        [vec![0; 100_000], canary.value().into()].concat(),
    )
    .unwrap();
    let sightings = canary.look_in_folder(folder.path());
    assert!(
        sightings.iter().any(|sighting| sighting.offset == 100_000),
        "{sightings:?}"
    );
    std::fs::remove_file(folder.join("a/b/wal")).unwrap();
    canary.assert_absent([folder.path()]);
}

#[test]
#[should_panic(expected = "the plaintext stands (hex)")]
fn a_sighting_fails_a_test() {
    let canary = Canary::fresh();
    canary.assert_absent_in("a log line", hex::encode(canary.value()).as_bytes());
}
