//! `#[derive(State)]`.

mod implement;
mod input;
mod migration;
mod parse;
mod secret;
mod update;

use proc_macro2::TokenStream;
use syn::{DeriveInput, Result};

use self::parse::Item;

pub(crate) fn expand(item: &DeriveInput) -> Result<TokenStream> {
    let item = Item::parse(item)?;
    let mut code = update::expand(&item);
    code.extend(input::expand(&item));
    code.extend(implement::expand(&item));
    code.extend(secret::names(&item));
    code.extend(secret::debug(&item));
    Ok(code)
}
