//! The layers settings come from, the reader that takes them apart, and the list of all that is wrong.

use std::{collections::BTreeMap, fmt, path::Path};

use figment::{
    Error, Figment, Metadata, Profile, Provider,
    providers::{Format, Toml},
    value::{Dict, Map, Value},
};

use super::variable::{VARIABLES, Variable};

/// One thing that is wrong with the settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The setting, or the file that cannot be read.
    pub subject: String,
    /// What is wrong and what to write instead.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.subject, self.message)
    }
}

/// Everything that is wrong with the settings, at once.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct SettingsError {
    /// At least one.
    pub problems: Vec<Problem>,
}

impl fmt::Display for SettingsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.problems.as_slice() {
            [only] => write!(f, "a setting is wrong: {only}"),
            all => {
                write!(f, "{} settings are wrong:", all.len())?;
                all.iter().try_for_each(|problem| write!(f, "\n  {problem}"))
            }
        }
    }
}

/// Texts by the key of their setting, all from one place.
struct Layer {
    place: String,
    texts: BTreeMap<String, String>,
}

impl Provider for Layer {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.place.clone())
    }

    fn data(&self) -> Result<Map<Profile, Dict>, Error> {
        let dict = self
            .texts
            .iter()
            .map(|(key, text)| (key.clone(), Value::from(text.as_str())))
            .collect();
        Ok(Profile::Default.collect(dict))
    }
}

/// The settings file as a layer, its values as they are written there.
struct FileLayer {
    place: String,
    dict: Dict,
}

impl Provider for FileLayer {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.place.clone())
    }

    fn data(&self) -> Result<Map<Profile, Dict>, Error> {
        Ok(Profile::Default.collect(self.dict.clone()))
    }
}

/// Takes settings out of the layers one by one and gathers what is wrong with them.
pub(super) struct Reader {
    figment: Figment,
    problems: Vec<Problem>,
}

impl Reader {
    /// An empty stack of layers.
    pub(super) fn new() -> Self {
        Self {
            figment: Figment::new(),
            problems: Vec::new(),
        }
    }

    /// Puts a layer of texts over what is there; names in capitals or not, empty values left out.
    pub(super) fn over<N: AsRef<str>>(&mut self, place: &str, texts: impl IntoIterator<Item = (N, String)>) {
        let texts = texts
            .into_iter()
            .filter(|(_, text)| !text.trim().is_empty())
            .map(|(name, text)| (name.as_ref().to_ascii_lowercase(), text))
            .collect();
        self.merge(Layer {
            place: place.to_owned(),
            texts,
        });
    }

    /// Puts a settings file over what is there.
    pub(super) fn over_file(&mut self, path: &Path) {
        let place = path.display().to_string();
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) => {
                return self.problem(
                    place,
                    format!("cannot be read ({error}): name another file with --config"),
                );
            }
        };
        let dict: Dict = match Toml::from_str(&text) {
            Ok(dict) => dict,
            Err(error) => return self.problem(place, format!("is not valid TOML: {}", first_line(&error.to_string()))),
        };
        for key in dict
            .keys()
            .filter(|key| !VARIABLES.iter().any(|variable| variable.key() == **key))
        {
            self.problem(
                key.clone(),
                format!("is not a setting (in {place}): .env.example lists them all, here in lower case"),
            );
        }
        self.merge(FileLayer { place, dict });
    }

    fn merge(&mut self, layer: impl Provider) {
        self.figment = std::mem::take(&mut self.figment).merge(layer);
    }

    /// Notes that something is wrong.
    pub(super) fn problem(&mut self, subject: impl Into<String>, message: impl Into<String>) {
        self.problems.push(Problem {
            subject: subject.into(),
            message: message.into(),
        });
    }

    /// Notes what is wrong with the value of a setting, and where the value comes from.
    pub(super) fn wrong(&mut self, variable: &Variable, message: &str) {
        let place = self
            .figment
            .find_metadata(&variable.key())
            .map(|found| found.name.to_string());
        let from = place.map_or_else(String::new, |place| format!(" (from {place})"));
        self.problem(variable.name, format!("{message}{from}"));
    }

    /// The text of a setting, `None` where nobody sets it.
    pub(super) fn text(&mut self, name: &'static str) -> Option<String> {
        let variable = Variable::named(name)?;
        let value = self.figment.find_value(&variable.key()).ok()?;
        match text_of(&value) {
            Some(text) if text.trim().is_empty() => None,
            Some(text) => Some(text.trim().to_owned()),
            None => {
                self.wrong(variable, "must be a single value, not a list or a table");
                None
            }
        }
    }

    /// A setting as its type; what `parse` refuses becomes a problem.
    pub(super) fn parsed<T>(&mut self, name: &'static str, parse: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
        let text = self.text(name)?;
        let variable = Variable::named(name)?;
        match parse(&text) {
            Ok(value) => Some(value),
            Err(message) if variable.secret => {
                self.wrong(variable, &message);
                None
            }
            Err(message) => {
                self.wrong(variable, &format!("`{text}` {message}"));
                None
            }
        }
    }

    /// Ends the reading.
    pub(super) fn finish<T>(self, value: T) -> Result<T, SettingsError> {
        if self.problems.is_empty() {
            Ok(value)
        } else {
            Err(SettingsError {
                problems: self.problems,
            })
        }
    }
}

fn text_of(value: &Value) -> Option<String> {
    match value {
        Value::String(_, text) => Some(text.clone()),
        Value::Char(_, one) => Some(one.to_string()),
        Value::Bool(_, flag) => Some(flag.to_string()),
        Value::Num(_, _) => value
            .to_i128()
            .map(|n| n.to_string())
            .or_else(|| value.to_f64().map(|n| n.to_string())),
        Value::Empty(..) => Some(String::new()),
        Value::Dict(..) | Value::Array(..) => None,
    }
}

fn first_line(text: &str) -> &str {
    text.lines().find(|line| !line.trim().is_empty()).unwrap_or(text)
}
