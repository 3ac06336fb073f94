//! Detecting a language and knowing its stemmer and stop words.
