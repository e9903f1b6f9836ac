//! The sources, one over the other. In: the embedded default, at most two files, the environment.
//! Out: [`SettingReader`], the values that win, each with its source, and what was wrong with the sources.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    fmt::Display,
    fs,
    path::{Path, PathBuf},
};

use config::{File, FileFormat, Map, ValueKind};
use serde_json::Value;

pub(super) const DEFAULT: &str = include_str!("../../config/default.toml");
const PREFIX: &str = "REKEY__";
const FILE_SUFFIX: &str = "__FILE";
/// The source of a value that no other source gives.
pub(super) const BUILT_IN: &str = "default";
/// The section whose names are free.
pub(super) const PRESETS: &str = "presets.";

/// What settings are read from, besides the embedded default.
#[derive(Clone, Default)]
pub(crate) struct Sources {
    /// Environment variables; those that mean nothing to the settings are ignored.
    pub environment: BTreeMap<OsString, OsString>,
    /// The argument `--config`; it wins over `REKEY_CONFIG`.
    pub config_file: Option<PathBuf>,
    /// The folder that holds `config/<REKEY_ENV>.toml`; empty is the working directory.
    pub folder: PathBuf,
}

impl Sources {
    /// The variable's value, unless it is empty.
    fn variable(&self, name: &str) -> Option<&OsStr> {
        let value = self.environment.get(OsStr::new(name))?;
        Some(value.as_os_str()).filter(|value| !value.is_empty())
    }
}

/// One thing to put right about a setting: `key (source): what`.
pub(super) fn fault(key: &str, source: &str, what: impl Display) -> String {
    format!("{} ({source}): {what}", key.escape_debug())
}

/// The values that win, by key, and all faults so far. `reader.rs` takes the settings out of it.
#[derive(Default)]
pub(super) struct SettingReader {
    pub(super) settings: Map<String, Setting>,
    /// The default of each setting.
    pub(super) defaults: Map<String, Value>,
    pub(super) faults: Vec<String>,
    /// What is no setting: reported last.
    pub(super) unknown: Vec<String>,
}

pub(super) struct Setting {
    /// Where the value came from, as faults say it; names from outside are escaped, so that none breaks the line.
    pub(super) source: String,
    /// None: there is a fault of this setting already.
    pub(super) value: Option<Value>,
}

pub(super) fn collect(sources: &Sources) -> SettingReader {
    let mut reader = SettingReader::default();
    reader.add_toml(DEFAULT, BUILT_IN);
    if let Some(name) = sources.variable("REKEY_ENV") {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
        match name.to_str().filter(|name| name.bytes().all(plain)) {
            Some(name) => reader.add_file(&sources.folder.join(format!("config/{name}.toml"))),
            None => reader.faults.push(fault(
                "REKEY_ENV",
                "environment variable REKEY_ENV",
                "must be a name of letters, digits, _ and -",
            )),
        }
    }
    let named = sources.variable("REKEY_CONFIG").map(Path::new);
    if let Some(path) = sources.config_file.as_deref().or(named) {
        reader.add_file(path);
    }
    reader.add_environment(&sources.environment);
    reader
}

impl SettingReader {
    fn add_file(&mut self, path: &Path) {
        let from = format!("file {}", path.to_string_lossy().escape_debug());
        match fs::read_to_string(path) {
            Ok(text) => self.add_toml(&text, &from),
            Err(cause) => self.faults.push(format!("{from}: cannot be read: {cause}")),
        }
    }

    fn add_toml(&mut self, text: &str, from: &str) {
        if let Err(error) = toml::de::DeTable::parse(text) {
            // The parser's own text quotes the file.
            let before = error.span().and_then(|span| text.get(..span.start));
            let line = 1 + before.unwrap_or_default().matches('\n').count();
            let what = format!("{from}, line {line}: not valid TOML");
            return self.faults.push(what);
        }
        let toml = File::from_str(text, FileFormat::Toml);
        let Ok(sections) = config::Source::collect(&toml) else {
            let what = format!("{from}: a number in it is larger than any setting allows");
            return self.faults.push(what);
        };
        for (section, value) in sections {
            if let ValueKind::Table(table) = value.kind
                && (self.is_section(&section) || !table.is_empty())
            {
                for (name, value) in table {
                    // What only TOML has (`nan`) becomes null, which no rule takes.
                    let value = value.try_deserialize().unwrap_or_default();
                    self.add(format!("{section}.{name}"), value, from);
                }
            } else {
                self.refuse_unknown(&section, from);
            }
        }
    }

    /// Lays a value over the one before it, unless it is of no setting.
    fn add(&mut self, key: String, value: Value, from: &str) {
        if from == BUILT_IN {
            self.defaults.insert(key.clone(), value.clone());
        }
        if self.defaults.contains_key(&key) || key.starts_with(PRESETS) {
            let source = from.to_owned();
            let value = Some(value);
            self.settings.insert(key, Setting { source, value });
        } else {
            self.refuse_unknown(&key, from);
        }
    }

    fn is_section(&self, name: &str) -> bool {
        let mut sections = self.defaults.keys().filter_map(|key| key.split_once('.'));
        sections.any(|(section, _)| section == name)
    }

    fn refuse_unknown(&mut self, key: &str, from: &str) {
        let distance = |name: &String| (strsim::levenshtein(key, name), name.clone());
        let what = match self.defaults.keys().map(distance).min() {
            _ if self.is_section(key) => "must be a table of settings".to_owned(),
            Some((0..=3, name)) => format!("unknown setting; did you mean {name}?"),
            _ => "unknown setting".to_owned(),
        };
        self.unknown.push(fault(key, from, what));
    }

    /// Variables in the order of their names, because the environment has none that would mean anything.
    fn add_environment(&mut self, environment: &BTreeMap<OsString, OsString>) {
        for (variable, value) in environment {
            let variable = variable.to_string_lossy();
            if !variable.starts_with(PREFIX) {
                continue;
            }
            let in_file = variable.strip_suffix(FILE_SUFFIX);
            let key = key_of(in_file.unwrap_or(&variable));
            let from = format!("environment variable {}", variable.escape_debug());
            if environment.contains_key(OsStr::new(&format!("{variable}{FILE_SUFFIX}"))) {
                let what = format!("{from}__FILE is set too; set only one of them");
                self.faults.push(fault(&key, &from, what));
            }
            let text = match (in_file, value.to_str()) {
                (Some(_), _) => value_file(value),
                (None, Some(text)) => Ok(text.to_owned()),
                (None, None) => Err("must be text in UTF-8".to_owned()),
            };
            match text {
                Ok(text) => {
                    let value = typed(&text, self.defaults.get(&key));
                    self.add(key, value, &from);
                }
                Err(what) => {
                    self.faults.push(fault(&key, &from, what));
                    let (source, value) = (from, None);
                    self.settings.insert(key, Setting { source, value });
                }
            }
        }
    }
}

/// A variable's text as a value of the default's type. A text that can't be one stays a text, which the
/// setting's rule then refuses.
fn typed(text: &str, default: Option<&Value>) -> Value {
    // `parse` takes a plus sign, which no file does.
    let is_whole = text.bytes().all(|byte| byte.is_ascii_digit());
    let value = match default {
        Some(Value::Number(_)) if is_whole => text.parse::<u64>().ok().map(Value::from),
        Some(Value::Bool(_)) => text.parse().ok().map(Value::Bool),
        Some(Value::Array(_)) if text.is_empty() => Some(Value::Array(Vec::new())),
        Some(Value::Array(_)) => Some(text.split(',').map(str::trim).collect()),
        _ => None,
    };
    value.unwrap_or_else(|| text.into())
}

/// The text of the file that a variable names: one line, which may end in a line break.
fn value_file(path: &OsStr) -> Result<String, String> {
    let text = fs::read_to_string(path).map_err(|cause| {
        let path = path.to_string_lossy();
        // Addresses and keys hold a colon, paths of secrets hardly ever do. So an operator who gave the value
        // itself in place of its path does not find it in the log.
        if path.contains(':') {
            format!("cannot read what it names (not shown, it does not look like a path): {cause}")
        } else {
            format!("cannot read {}: {cause}", path.escape_debug())
        }
    })?;
    let line = text.strip_suffix('\n');
    let line = line.map_or(text.as_str(), |line| {
        line.strip_suffix('\r').unwrap_or(line)
    });
    if line.contains(['\n', '\r']) {
        return Err("must be one line, with at most one line break at its end".to_owned());
    }
    Ok(line.to_owned())
}

/// `REKEY__SERVER__PORT` → `server.port`. Only the first pair of underscores divides, so that a provider may
/// hold one. Variables are upper case: another one keeps its letters, and so is no setting.
fn key_of(variable: &str) -> String {
    let name = variable.strip_prefix(PREFIX).unwrap_or(variable);
    let key = name.replacen("__", ".", 1);
    if key.bytes().any(|byte| byte.is_ascii_lowercase()) {
        key
    } else {
        key.to_ascii_lowercase()
    }
}
