//! Keeping the system message out of an answer.

use std::collections::VecDeque;

/// So many characters in a row of the system message are a leak.
pub const SECRET_RUN_CHARS: usize = 20;

/// What stands in the place of what was kept back.
const WITHHELD: &str = "[…]";

/// A filter that lets no run of [`SECRET_RUN_CHARS`] characters of a secret text through, compared without case and with all
/// white space alike.
///
/// Of the text so far it holds back the longest end that stands in the secret too: what comes next decides about it.
#[derive(Debug)]
pub struct Secrecy {
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

impl Secrecy {
    /// Keeps `secret` back, but for runs that one of `open` holds as well.
    #[must_use]
    pub fn new(secret: &str, open: &[&str]) -> Self {
        Self {
            secret: normal(secret),
            open: open.iter().map(|text| normal(text)).collect::<Vec<_>>().join("\n"),
            held: VecDeque::new(),
            end: String::new(),
            is_leaking: false,
        }
    }

    /// Takes the next piece and gives what may be shown by now.
    pub fn push(&mut self, piece: &str) -> String {
        let mut shown = String::with_capacity(piece.len());
        for c in piece.chars() {
            self.take(c, &mut shown);
        }
        shown
    }

    /// Gives what was held back. The filter begins anew then.
    pub fn finish(&mut self) -> String {
        let mut shown = String::new();
        while self.release(&mut shown) {}
        self.is_leaking = false;
        shown
    }

    fn take(&mut self, c: char, shown: &mut String) {
        let normal = normal_char(c);
        if normal == ' '
            && let Some(last) = self.held.back_mut()
            && last.normal == ' '
        {
            last.as_sent.push(c);
            return;
        }
        self.end.push(normal);
        self.held.push_back(Held {
            as_sent: c.to_string(),
            normal,
            is_withheld: false,
        });
        while !self.end.is_empty() && (self.held.len() > SECRET_RUN_CHARS || !self.secret.contains(&self.end)) {
            self.release(shown);
        }
        let leaks = self.held.len() == SECRET_RUN_CHARS && !self.open.contains(&self.end);
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

/// The text as it is compared.
fn normal(text: &str) -> String {
    let mut normal = String::with_capacity(text.len());
    for c in text.chars().map(normal_char) {
        if c != ' ' || !normal.ends_with(' ') {
            normal.push(c);
        }
    }
    normal
}

fn normal_char(c: char) -> char {
    if c.is_whitespace() {
        ' '
    } else {
        c.to_lowercase().next().unwrap_or(c)
    }
}
