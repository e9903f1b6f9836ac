//! The sources, layered by `config`. In: the embedded default, at most two files, the environment.
//! Out: [`Layers`], the tree of values that win, each with its source, and what was wrong with the sources.

use std::{
    ffi::{OsStr, OsString},
    fs,
    path::{Path, PathBuf},
};

use config::{Config, ConfigError, File, FileFormat, Map, Value, ValueKind};

use super::error::{Source, fault};

pub(super) const DEFAULT: &str = include_str!("../../config/default.toml");
const PREFIX: &str = "REKEY__";
const FILE_SUFFIX: &str = "__FILE";
/// The section whose names are free.
pub(super) const PRESETS: &str = "presets";

/// What settings are read from, besides the embedded default.
#[derive(Clone, Default)]
pub(crate) struct Sources {
    /// Environment variables; those that mean nothing to the settings are ignored.
    pub environment: Vec<(OsString, OsString)>,
    /// The argument `--config`; it wins over `REKEY_CONFIG`.
    pub config_file: Option<PathBuf>,
    /// The folder that holds `config/<REKEY_ENV>.toml`; empty is the working directory.
    pub folder: PathBuf,
}

impl Sources {
    /// The sources of this process.
    #[must_use]
    pub(crate) fn of_process(config_file: Option<&Path>) -> Self {
        Self {
            environment: std::env::vars_os().collect(),
            config_file: config_file.map(Path::to_owned),
            folder: PathBuf::new(),
        }
    }

    /// The variable's value, unless it is empty.
    fn variable(&self, name: &str) -> Option<&OsStr> {
        let mut variables = self.environment.iter();
        let (_, value) = variables.find(|(other, _)| other == name)?;
        Some(value.as_os_str()).filter(|value| !value.is_empty())
    }
}

/// The values that win, and the faults of their sources.
pub(super) struct Layers {
    /// Section → key → value; a value's origin is the index of its source.
    pub(super) values: Config,
    pub(super) sources: Vec<Source>,
    pub(super) faults: Vec<String>,
    /// What is no setting: reported last.
    pub(super) unknown: Vec<String>,
    /// The settings that have a fault.
    pub(super) refused: Vec<String>,
    /// The names that settings have.
    pub(super) known: Vec<String>,
}

pub(super) fn collect(sources: &Sources) -> Layers {
    let mut layers = Layers {
        values: Config::default(),
        sources: Vec::new(),
        faults: Vec::new(),
        unknown: Vec::new(),
        refused: Vec::new(),
        known: Vec::new(),
    };
    layers.text(DEFAULT, Source::Default);
    if let Some(name) = sources.variable("REKEY_ENV") {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
        match name.to_str().filter(|name| name.bytes().all(plain)) {
            Some(name) => layers.file(&sources.folder.join(format!("config/{name}.toml"))),
            None => layers.faults.push(fault(
                "REKEY_ENV",
                &Source::Variable("REKEY_ENV".to_owned()),
                "must be a name of letters, digits, _ and -",
            )),
        }
    }
    let named = sources.variable("REKEY_CONFIG").map(Path::new);
    if let Some(path) = sources.config_file.as_deref().or(named) {
        layers.file(path);
    }
    layers.environment(sources);
    layers
}

impl Layers {
    fn file(&mut self, path: &Path) {
        let from = Source::File(path.to_owned());
        match fs::read_to_string(path) {
            Ok(text) => self.text(&text, from),
            Err(cause) => self.faults.push(format!("{from}: cannot be read: {cause}")),
        }
    }

    fn text(&mut self, text: &str, from: Source) {
        match config::Source::collect(&File::from_str(text, FileFormat::Toml)) {
            Ok(sections) => self.add(sections, from),
            Err(error) => {
                // The parser's own text quotes the file.
                let before = position_of(&error).and_then(|start| text.get(..start));
                self.faults.push(match before {
                    Some(before) => {
                        let line = 1 + before.matches('\n').count();
                        format!("{from}, line {line}: not valid TOML")
                    }
                    // Of all errors, only that of a number has no position.
                    None => format!("{from}: a number in it is larger than any setting allows"),
                });
            }
        }
    }

    /// Lays one source over those before it, except what is no setting.
    fn add(&mut self, sections: Map<String, Value>, from: Source) {
        let origin = self.sources.len().to_string();
        let mut settings = Map::new();
        for (section, value) in sections {
            let ValueKind::Table(table) = value.kind else {
                self.refuse_section(&section, &from);
                continue;
            };
            if table.is_empty() && !self.has_section(&section) && from != Source::Default {
                self.refuse_section(&section, &from);
                continue;
            }
            let mut values = Map::new();
            for (name, value) in table {
                let key = format!("{section}.{name}");
                if from == Source::Default {
                    self.known.push(key);
                } else if section != PRESETS && !self.known.contains(&key) {
                    self.refuse_unknown(&key, &from);
                    continue;
                }
                // No setting is a table; laid over a value, one would keep that value's origin.
                let kind = if matches!(value.kind, ValueKind::Table(_)) {
                    ValueKind::Nil
                } else {
                    value.kind
                };
                values.insert(name, Value::new(Some(&origin), kind));
            }
            settings.insert(section, Value::new(Some(&origin), values));
        }
        self.sources.push(from);
        let layered = Config::builder()
            .add_source(std::mem::take(&mut self.values))
            .add_source(Layer(settings))
            .build();
        #[expect(
            clippy::expect_used,
            reason = "both sources are in memory and never fail"
        )]
        let layered = layered.expect("layering can't fail");
        self.values = layered;
    }

    fn has_section(&self, section: &str) -> bool {
        let section_of = |key: &String| key.split('.').next() == Some(section);
        self.known.iter().any(section_of)
    }

    /// A section that is not a table, or that nothing is read from.
    fn refuse_section(&mut self, key: &str, from: &Source) {
        if self.has_section(key) {
            let what = "must be a table of settings";
            self.unknown.push(fault(key, from, what));
        } else {
            self.refuse_unknown(key, from);
        }
    }

    fn refuse_unknown(&mut self, key: &str, from: &Source) {
        let distance = |name: &String| (strsim::levenshtein(key, name), name.clone());
        let nearest = self.known.iter().map(distance).min();
        let what = match nearest {
            Some((0..=3, name)) => format!("unknown setting; did you mean {name}?"),
            _ => "unknown setting".to_owned(),
        };
        self.unknown.push(fault(key, from, what));
    }

    fn environment(&mut self, sources: &Sources) {
        let mut variables: Vec<(String, &OsStr)> = Vec::new();
        for (name, value) in &sources.environment {
            let name = name.to_string_lossy().into_owned();
            if name.starts_with(PREFIX) {
                variables.push((name, value));
            }
        }
        // The environment has no order that would mean anything.
        variables.sort();
        let is_set = |name: &str| variables.iter().any(|(other, _)| other == name);
        for (variable, value) in &variables {
            let in_file = variable.strip_suffix(FILE_SUFFIX);
            let key = key_of(in_file.unwrap_or(variable));
            let from = Source::Variable(variable.clone());
            if is_set(&format!("{variable}{FILE_SUFFIX}")) {
                let what = format!("{from}__FILE is set too; set only one of them");
                self.faults.push(fault(&key, &from, what));
            }
            let text = match in_file {
                Some(_) => value_file(value),
                None => value
                    .to_str()
                    .map(str::to_owned)
                    .ok_or("must be text in UTF-8".to_owned()),
            };
            match text {
                Ok(text) => self.add(nested(&key, text), from),
                Err(what) => {
                    self.faults.push(fault(&key, &from, what));
                    self.refused.push(key);
                }
            }
        }
    }
}

/// A source that is in memory.
#[derive(Debug, Clone)]
struct Layer(Map<String, Value>);

impl config::Source for Layer {
    fn clone_into_box(&self) -> Box<dyn config::Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Map<String, Value>, ConfigError> {
        Ok(self.0.clone())
    }
}

/// `section.name` as a table in a table; a name without a section as it is.
fn nested(key: &str, text: String) -> Map<String, Value> {
    match key.split_once('.') {
        Some((section, name)) => {
            let values = Map::from_iter([(name.to_owned(), Value::new(None, text))]);
            Map::from_iter([(section.to_owned(), Value::new(None, values))])
        }
        None => Map::from_iter([(key.to_owned(), Value::new(None, text))]),
    }
}

/// The text of the file that a variable names; one line break at its end is dropped.
fn value_file(path: &OsStr) -> Result<String, String> {
    match fs::read_to_string(path) {
        Ok(text) => {
            let line = text.strip_suffix('\n').unwrap_or(&text);
            Ok(line.strip_suffix('\r').unwrap_or(line).to_owned())
        }
        Err(cause) => Err(format!(
            "cannot read {}: {cause}",
            shown_path(path).escape_debug()
        )),
    }
}

/// Where a file stops being TOML, in bytes.
fn position_of(error: &ConfigError) -> Option<usize> {
    let ConfigError::FileParse { cause, .. } = error else {
        return None;
    };
    Some(cause.downcast_ref::<toml::de::Error>()?.span()?.start)
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

/// Addresses and keys hold a colon, paths of secrets hardly ever do. So an operator who gave the value itself
/// in place of its path does not find it in the log.
fn shown_path(path: &OsStr) -> String {
    let path = path.to_string_lossy();
    if path.contains(':') {
        "what it names (not shown, it does not look like a path)".to_owned()
    } else {
        path.into_owned()
    }
}
