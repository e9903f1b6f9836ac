//! The search for a plaintext where none may be.
//!
//! Comes in: a value that occurs nowhere else, and folders or bytes. Goes out: every place where ten bytes of it in a
//! row stand, in the clear, in base64 (standard and URL-safe, at each of the three alignments) or in hex (both
//! cases). What a mask shows of the value (its first six and last three characters) may appear. Compressed bytes are
//! not looked into: search a dump of the database as well.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use std::collections::{HashMap, HashSet};
use std::io::ErrorKind;
use std::path::Path;

const WINDOW: usize = 10;
const MASKED_FROM: usize = 24;
const SHOWN_FIRST: usize = 6;
const SHOWN_LAST: usize = 3;

pub(crate) struct Canary {
    value: String,
    /// What to look for, by its first two bytes.
    needles: HashMap<[u8; 2], Vec<Needle>>,
    /// Which first two bytes there are: a quick no for nearly every place.
    begins: Vec<bool>,
}

struct Needle {
    text: Vec<u8>,
    encoding: &'static str,
}

/// Where something of the value was seen, and how it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sighting {
    pub(crate) place: String,
    pub(crate) offset: usize,
    pub(crate) encoding: &'static str,
}

impl Canary {
    /// A value of 67 ASCII characters that occurs nowhere else.
    pub(crate) fn fresh() -> Self {
        let (one, two) = (uuid::Uuid::new_v4(), uuid::Uuid::new_v4());
        Self::new(&format!("sk-{}{}", one.simple(), two.simple()))
    }

    /// `value` has at least ten bytes besides what its mask shows.
    pub(crate) fn new(value: &str) -> Self {
        let bytes = value.as_bytes();
        let mut needles: HashMap<_, Vec<_>> = HashMap::new();
        let mut begins = vec![false; 1 << 16];
        let mut known = HashSet::new();
        for (start, window) in bytes.windows(WINDOW).enumerate() {
            if shown(value, start) {
                continue;
            }
            for needle in needles_of(window) {
                if known.insert(needle.text.clone()) {
                    let begin = [needle.text[0], needle.text[1]];
                    begins[usize::from(u16::from_be_bytes(begin))] = true;
                    needles.entry(begin).or_default().push(needle);
                }
            }
        }
        assert!(
            !needles.is_empty(),
            "a canary needs at least {WINDOW} bytes"
        );
        Self {
            value: value.to_owned(),
            needles,
            begins,
        }
    }

    pub(crate) fn value(&self) -> &str {
        &self.value
    }

    pub(crate) fn look_in(&self, place: &str, bytes: &[u8]) -> Vec<Sighting> {
        let mut sightings = Vec::new();
        for (offset, pair) in bytes.windows(2).enumerate() {
            let begin = [pair[0], pair[1]];
            if !self.begins[usize::from(u16::from_be_bytes(begin))] {
                continue;
            }
            let found = self.needles[&begin]
                .iter()
                .filter(|needle| bytes[offset..].starts_with(&needle.text));
            sightings.extend(found.map(|needle| Sighting {
                place: place.to_owned(),
                offset,
                encoding: needle.encoding,
            }));
        }
        sightings
    }

    /// In every file below the folder. A file that disappears meanwhile held nothing that stayed.
    pub(crate) fn look_in_folder(&self, folder: &Path) -> Vec<Sighting> {
        let mut sightings = Vec::new();
        let mut folders = vec![folder.to_path_buf()];
        while let Some(folder) = folders.pop() {
            let entries = match std::fs::read_dir(&folder) {
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                entries => entries.unwrap_or_else(|error| panic!("{}: {error}", folder.display())),
            };
            for entry in entries.flatten() {
                let path = entry.path();
                let Ok(kind) = entry.file_type() else {
                    continue;
                };
                sightings.extend(self.look_in("file name", entry.file_name().as_encoded_bytes()));
                if kind.is_dir() {
                    folders.push(path);
                } else if kind.is_file() {
                    match std::fs::read(&path) {
                        Err(error) if error.kind() == ErrorKind::NotFound => {}
                        bytes => {
                            let bytes =
                                bytes.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
                            sightings.extend(self.look_in(&path.display().to_string(), &bytes));
                        }
                    }
                }
            }
        }
        sightings
    }

    /// Panics at the first folder that holds something of the value.
    pub(crate) fn assert_absent<'folder>(&self, folders: impl IntoIterator<Item = &'folder Path>) {
        for folder in folders {
            report(&self.look_in_folder(folder));
        }
    }

    pub(crate) fn assert_absent_in(&self, place: &str, bytes: &[u8]) {
        report(&self.look_in(place, bytes));
    }
}

fn report(sightings: &[Sighting]) {
    let Some(first) = sightings.first() else {
        return;
    };
    let Sighting {
        place,
        offset,
        encoding,
    } = first;
    panic!(
        "the plaintext stands ({encoding}) in {place} at byte {offset}, and in {} places more",
        sightings.len() - 1
    );
}

/// Whether a mask shows all of the window that starts there.
fn shown(value: &str, start: usize) -> bool {
    let count = value.chars().count();
    if count < MASKED_FROM {
        return false;
    }
    let at = |index: usize| {
        value
            .char_indices()
            .nth(index)
            .map_or(value.len(), |(offset, _)| offset)
    };
    start + WINDOW <= at(SHOWN_FIRST) || start >= at(count - SHOWN_LAST)
}

fn needles_of(window: &[u8]) -> Vec<Needle> {
    let mut needles = vec![
        Needle {
            text: window.to_vec(),
            encoding: "in the clear",
        },
        Needle {
            text: hex::encode(window).into_bytes(),
            encoding: "hex",
        },
        Needle {
            text: hex::encode_upper(window).into_bytes(),
            encoding: "upper-case hex",
        },
    ];
    for before in 0..3 {
        let mut aligned = vec![0; before];
        aligned.extend_from_slice(window);
        // Only the characters that the window alone decides: each stands for six bits.
        let decided = (before * 8).div_ceil(6)..(aligned.len() * 8) / 6;
        for (engine, encoding) in [
            (STANDARD_NO_PAD, "base64"),
            (URL_SAFE_NO_PAD, "URL-safe base64"),
        ] {
            let text = engine.encode(&aligned).as_bytes()[decided.clone()].to_vec();
            needles.push(Needle { text, encoding });
        }
    }
    needles
}
