//! The derives of `stepgraph`, re-exported by it beside the traits that they implement.
//!
//! Each writes what a person would write by hand; its documentation shows it.

mod ask;
mod attribute;
mod route;
mod state;
mod view;

use proc_macro::TokenStream;
use syn::{DeriveInput, parse_macro_input};

#[doc = include_str!("../docs/state.md")]
#[proc_macro_derive(State, attributes(state))]
pub fn state(item: TokenStream) -> TokenStream {
    expand(&parse_macro_input!(item), &state::expand)
}

#[doc = include_str!("../docs/route.md")]
#[proc_macro_derive(Route)]
pub fn route(item: TokenStream) -> TokenStream {
    expand(&parse_macro_input!(item), &route::expand)
}

#[doc = include_str!("../docs/view.md")]
#[proc_macro_derive(View, attributes(view))]
pub fn view(item: TokenStream) -> TokenStream {
    expand(&parse_macro_input!(item), &view::expand)
}

#[doc = include_str!("../docs/ask.md")]
#[proc_macro_derive(Ask, attributes(ask))]
pub fn ask(item: TokenStream) -> TokenStream {
    expand(&parse_macro_input!(item), &ask::expand)
}

fn expand(item: &DeriveInput, write: &dyn Fn(&DeriveInput) -> syn::Result<proc_macro2::TokenStream>) -> TokenStream {
    write(item).unwrap_or_else(syn::Error::into_compile_error).into()
}
