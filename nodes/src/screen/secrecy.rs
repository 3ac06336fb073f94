//! Keeping the system message out of an answer.

use std::collections::VecDeque;

use memchr::memmem;
use unicode_normalization::UnicodeNormalization;

use super::encoded::encodings;

/// So many characters in a row of the system message are a leak.
pub const SECRET_RUN_CHARS: usize = 20;

/// What stands in the place of what was kept back.
const WITHHELD: &str = "[…]";

/// Two filters, one behind the other, that let no run of [`SECRET_RUN_CHARS`] characters of a secret text through: one
/// compares what is said without case and with all white space alike, the other its letters and digits alone, with the
/// secret's own and with those of its common encodings.
///
/// Of the text so far each holds back the longest end that stands in the secret too: what comes next decides about it.
#[derive(Debug)]
pub struct Secrecy {
    words: Runs,
    letters: Runs,
}

impl Secrecy {
    /// Keeps `secret` back, but for runs that one of `open` holds as well.
    #[must_use]
    pub fn new(secret: &str, open: &[&str]) -> Self {
        let encodings = encodings(secret).join("\n");
        Self {
            words: Runs::new(Form::Words, [secret], open),
            letters: Runs::new(Form::Letters, [secret, &encodings], open),
        }
    }

    /// Takes the next piece and gives what may be shown by now.
    pub fn push(&mut self, piece: &str) -> String {
        let told = self.words.push(piece);
        self.letters.push(&told)
    }

    /// Gives what was held back. The filter begins anew then.
    pub fn finish(&mut self) -> String {
        let told = self.words.finish();
        let mut shown = self.letters.push(&told);
        shown.push_str(&self.letters.finish());
        shown
    }
}

/// What is compared.
#[derive(Debug, Clone, Copy)]
enum Form {
    /// All of it, without case and with all white space alike.
    Words,
    /// Letters and digits of any width and style, as the plain ones.
    Letters,
}

impl Form {
    /// What a character is compared as; `None` leaves it out.
    fn of(self, c: char) -> Option<char> {
        match self {
            Self::Words if c.is_whitespace() => Some(' '),
            Self::Words => Some(lower(c)),
            Self::Letters => {
                let plain = std::iter::once(c).nfkc().next().unwrap_or(c);
                plain.is_alphanumeric().then(|| lower(plain))
            }
        }
    }
}

/// The filter of one form.
#[derive(Debug)]
struct Runs {
    form: Form,
    secret: String,
    open: String,
    held: VecDeque<Held>,
    /// The normal forms of `held`, joined.
    end: String,
    is_leaking: bool,
}

/// A character that waits, as it came and as it is compared.
#[derive(Debug)]
struct Held {
    as_sent: String,
    normal: char,
    is_withheld: bool,
}

impl Runs {
    fn new(form: Form, secrets: impl IntoIterator<Item = impl AsRef<str>>, open: &[&str]) -> Self {
        Self {
            form,
            secret: joined(form, secrets),
            open: joined(form, open),
            held: VecDeque::new(),
            end: String::new(),
            is_leaking: false,
        }
    }

    fn push(&mut self, piece: &str) -> String {
        let mut shown = String::with_capacity(piece.len());
        for c in piece.chars() {
            self.take(c, &mut shown);
        }
        shown
    }

    fn finish(&mut self) -> String {
        let mut shown = String::new();
        while self.release(&mut shown) {}
        self.is_leaking = false;
        shown
    }

    fn take(&mut self, c: char, shown: &mut String) {
        let last = self.held.back_mut();
        let normal = match (self.form.of(c), last) {
            (None, None) => {
                shown.push(c);
                return;
            }
            (None, Some(last)) => {
                last.as_sent.push(c);
                return;
            }
            (Some(' '), Some(last)) if last.normal == ' ' => {
                last.as_sent.push(c);
                return;
            }
            (Some(normal), _) => normal,
        };
        self.end.push(normal);
        self.held.push_back(Held {
            as_sent: c.to_string(),
            normal,
            is_withheld: false,
        });
        while !self.end.is_empty() && (self.held.len() > SECRET_RUN_CHARS || !contains(&self.secret, &self.end)) {
            self.release(shown);
        }
        let leaks = self.held.len() == SECRET_RUN_CHARS && !contains(&self.open, &self.end);
        if leaks {
            for held in &mut self.held {
                held.is_withheld = true;
            }
            if !self.is_leaking {
                shown.push_str(WITHHELD);
            }
        }
        self.is_leaking = leaks;
    }

    /// Lets the oldest character go; says whether there was one.
    fn release(&mut self, shown: &mut String) -> bool {
        let Some(oldest) = self.held.pop_front() else {
            return false;
        };
        self.end.drain(..oldest.normal.len_utf8());
        if !oldest.is_withheld {
            shown.push_str(&oldest.as_sent);
        }
        true
    }
}

fn contains(text: &str, part: &str) -> bool {
    memmem::find(text.as_bytes(), part.as_bytes()).is_some()
}

/// The texts as they are compared, one after another.
fn joined(form: Form, texts: impl IntoIterator<Item = impl AsRef<str>>) -> String {
    let mut joined = String::new();
    for text in texts {
        for c in text.as_ref().chars().filter_map(|c| form.of(c)) {
            if c != ' ' || !joined.ends_with(' ') {
                joined.push(c);
            }
        }
        // No run goes from one text into the next: neither form gives this character.
        joined.push('\n');
    }
    joined
}

fn lower(c: char) -> char {
    c.to_lowercase().next().unwrap_or(c)
}
