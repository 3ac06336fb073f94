//! Cutting a text into chunks of about 500 tokens.
