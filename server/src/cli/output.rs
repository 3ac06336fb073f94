//! Data on standard output, as text for people or JSON for machines; words about the work on standard error.

use std::{
    env,
    fmt::Write as _,
    io::{self, IsTerminal as _, Write as _},
};

use serde::Serialize;

use super::CliError;

/// How a piece of text is set off on a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    /// As it is.
    Plain,
    /// Headings and what to look at first.
    Bold,
    /// What matters less.
    Dim,
    /// All is well.
    Good,
    /// Something failed.
    Bad,
}

impl Style {
    const fn code(self) -> &'static str {
        match self {
            Self::Plain => "0",
            Self::Bold => "1",
            Self::Dim => "2",
            Self::Good => "32",
            Self::Bad => "31",
        }
    }
}

/// What the command prints its data as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// For people.
    Text,
    /// For machines.
    Json,
}

/// Standard output of a command.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Output {
    form: Form,
    colours: bool,
}

#[expect(
    clippy::unused_self,
    reason = "all that is printed goes through the value that knows the form, whether it has to know it or not"
)]
impl Output {
    /// Colours stand only on a terminal, and only where `NO_COLOR` is not set.
    pub(crate) fn new(form: Form) -> Self {
        let wanted = env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Self {
            form,
            colours: wanted && io::stdout().is_terminal(),
        }
    }

    /// Whether machines read it.
    pub(crate) fn is_json(self) -> bool {
        self.form == Form::Json
    }

    /// The text, set off where colours are wanted.
    pub(crate) fn styled(self, style: Style, text: &str) -> String {
        if self.colours && style != Style::Plain {
            format!("\x1b[{}m{text}\x1b[0m", style.code())
        } else {
            text.to_owned()
        }
    }

    /// Writes a piece of text at once, without a new line.
    pub(crate) fn piece(self, text: &str) -> Result<(), CliError> {
        let mut stdout = io::stdout().lock();
        stdout
            .write_all(text.as_bytes())
            .and_then(|()| stdout.flush())
            .map_err(CliError::Output)
    }

    /// Writes a line.
    pub(crate) fn line(self, text: &str) -> Result<(), CliError> {
        let mut stdout = io::stdout().lock();
        writeln!(stdout, "{text}")
            .and_then(|()| stdout.flush())
            .map_err(CliError::Output)
    }

    /// Writes a value as one line of JSON.
    pub(crate) fn json(self, value: &impl Serialize) -> Result<(), CliError> {
        let text = serde_json::to_string(value).map_err(|error| CliError::Output(error.into()))?;
        self.line(&text)
    }

    /// Writes rows as a table: columns as wide as their widest cell, the last one as it is.
    pub(crate) fn table(self, head: &[&str], rows: &[Vec<(Style, String)>]) -> Result<(), CliError> {
        let head: Vec<_> = head.iter().map(|title| (Style::Bold, (*title).to_owned())).collect();
        let all = || std::iter::once(&head).chain(rows);
        let widths: Vec<usize> = (0..head.len())
            .map(|column| {
                all()
                    .filter_map(|row| row.get(column))
                    .map(|(_, cell)| cell.chars().count())
                    .max()
                    .unwrap_or(0)
            })
            .collect();
        for row in all() {
            let mut line = String::new();
            for (index, ((style, cell), width)) in row.iter().zip(&widths).enumerate() {
                let gap = if index + 1 == row.len() {
                    0
                } else {
                    width.saturating_sub(cell.chars().count()) + 2
                };
                let _ = write!(line, "{}{:gap$}", self.styled(*style, cell), "");
            }
            self.line(&line)?;
        }
        Ok(())
    }
}

/// Tells the person at the terminal something about the work. Nobody may be there; that is no failure.
pub(crate) fn say(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Tells why the command failed, as JSON where the data is JSON too.
pub(crate) fn complain(error: &CliError, form: Form) {
    match form {
        Form::Text => say(&format!("error: {error}")),
        Form::Json => say(&serde_json::json!({ "error": { "message": error.to_string() } }).to_string()),
    }
}
