//! Rendering the prompt, with a fence around retrieved text.
