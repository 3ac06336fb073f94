//! Fields marked `secret`: what is shown in their place.

use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};
use syn::{Attribute, Error, Expr, LitStr, Result, Token, meta::ParseNestedMeta, spanned::Spanned};

use super::parse::{Item, StateField};

/// What `serde` is told of the names in a state's JSON.
#[derive(Default)]
pub(super) struct SerdeNames {
    rename: Option<String>,
    rename_all: Option<String>,
    flattens: bool,
}

impl SerdeNames {
    /// What is wrong with the attributes, `serde` itself tells.
    pub(super) fn of(attributes: &[Attribute]) -> Self {
        let mut names = Self::default();
        for attribute in attributes.iter().filter(|a| a.path().is_ident("serde")) {
            let _told_by_serde = attribute.parse_nested_meta(|meta| names.read(&meta));
        }
        names
    }

    fn read(&mut self, meta: &ParseNestedMeta<'_>) -> Result<()> {
        let slot = if meta.path.is_ident("rename") {
            Some(&mut self.rename)
        } else if meta.path.is_ident("rename_all") {
            Some(&mut self.rename_all)
        } else {
            None
        };
        self.flattens |= meta.path.is_ident("flatten");
        if meta.input.peek(Token![=]) {
            let value = meta.value()?;
            match slot {
                Some(slot) => *slot = Some(value.parse::<LitStr>()?.value()),
                None => drop(value.parse::<Expr>()?),
            }
        } else if meta.input.peek(syn::token::Paren) {
            let mut serialize = None;
            meta.parse_nested_meta(|inner| {
                let value: Expr = inner.value()?.parse()?;
                if let (true, Expr::Lit(literal)) = (inner.path.is_ident("serialize"), value)
                    && let syn::Lit::Str(text) = literal.lit
                {
                    serialize = Some(text.value());
                }
                Ok(())
            })?;
            if let Some(slot) = slot {
                *slot = serialize.or_else(|| slot.take());
            }
        }
        Ok(())
    }

    /// The field has one member in the state's JSON.
    pub(super) fn check(&self, field: &syn::Field) -> Result<()> {
        if self.flattens {
            let message = "a secret field is shown as `[secret]`, which needs a name of its own: do not flatten it";
            return Err(Error::new_spanned(&field.ident, message));
        }
        Ok(())
    }

    /// The field's name in the state's JSON, by serde's own rules.
    pub(super) fn name(&self, all: &Self, label: &str) -> String {
        if let Some(name) = &self.rename {
            return name.clone();
        }
        match all.rename_all.as_deref() {
            Some("PascalCase") => pascal(label),
            Some("camelCase") => {
                let name = pascal(label);
                let mut letters = name.chars();
                letters.next().map_or_else(String::new, |first| {
                    first.to_ascii_lowercase().to_string() + letters.as_str()
                })
            }
            Some("UPPERCASE" | "SCREAMING_SNAKE_CASE") => label.to_ascii_uppercase(),
            Some("kebab-case") => label.replace('_', "-"),
            Some("SCREAMING-KEBAB-CASE") => label.to_ascii_uppercase().replace('_', "-"),
            _ => label.to_owned(),
        }
    }
}

fn pascal(label: &str) -> String {
    let words = label.split('_').map(|word| {
        let mut letters = word.chars();
        letters.next().map_or_else(String::new, |first| {
            first.to_ascii_uppercase().to_string() + letters.as_str()
        })
    });
    words.collect()
}

fn secrets(item: &Item) -> impl Iterator<Item = &StateField> {
    item.fields.iter().filter(|field| field.secret)
}

/// The names of the secret fields, for those who read the state.
pub(super) fn names(item: &Item) -> TokenStream {
    let name = &item.name;
    let labels = secrets(item).map(|field| &field.label);
    quote! {
        #[automatically_derived]
        impl ::stepgraph::derive_support::Secrets for #name {
            const SECRET: &'static [&'static str] = &[#(#labels),*];
        }
    }
}

/// The methods of `State` that keep secrets, if there are any.
pub(super) fn of_state(item: &Item) -> Option<TokenStream> {
    secrets(item).next()?;
    let hidden = secrets(item).map(|field| {
        let (name, value) = (&field.name, field.default_value());
        quote!(self.#name = #value;)
    });
    let members = secrets(item).map(|field| &field.json);
    Some(quote! {
        const SECRETS: &'static [&'static str] = &[#(#members),*];

        fn has_secrets(&self) -> bool {
            true
        }

        fn hide(&mut self) {
            #(#hidden)*
        }
    })
}

/// The same for `Update`.
pub(super) fn of_update(item: &Item) -> Option<TokenStream> {
    secrets(item).next()?;
    let written = secrets(item).map(|field| {
        let (name, ty) = (&field.name, field.update_type());
        let value = quote_spanned!(field.reducer_span()=> <#ty as ::core::default::Default>::default());
        let overwrite = field.overwrite().map(|overwrite| {
            let value = field.default_value();
            quote! {
                if let ::core::option::Option::Some(secret) = &mut fields.#overwrite {
                    *secret = #value;
                }
            }
        });
        quote! {
            if let ::core::option::Option::Some(secret) = &mut fields.#name {
                *secret = #value;
            }
            #overwrite
        }
    });
    let members = secrets(item).flat_map(|field| {
        let overwrite = field.overwrite().map(|overwrite| overwrite.to_string());
        [Some(field.label.clone()), overwrite].into_iter().flatten()
    });
    Some(quote! {
        fn hide(&mut self, _: &[::stepgraph::Field]) {
            let mut fields = ::core::mem::take(self).into_fields();
            #(#written)*
            *self = ::core::convert::From::from(fields);
        }

        fn shown(&self) -> ::core::result::Result<
            ::stepgraph::derive_support::Value,
            ::stepgraph::StateError,
        > {
            let mut hidden = ::core::clone::Clone::clone(self);
            ::stepgraph::Update::hide(&mut hidden, &[]);
            ::stepgraph::derive_support::shown(&hidden, &[#(#members),*])
        }
    })
}

/// A `Debug` for a state with secrets. One that the user derives as well would tell them: the two do not compile together.
pub(super) fn debug(item: &Item) -> Option<TokenStream> {
    secrets(item).next()?;
    let (name, shown) = (&item.name, item.name.to_string());
    let fields = item.fields.iter().map(|field| {
        let (name, label) = (&field.name, &field.label);
        if field.secret {
            return quote!(.field(#label, &::core::format_args!("[secret]")));
        }
        quote_spanned!(field.ty.span()=> .field(#label, &self.#name))
    });
    Some(quote! {
        /// Tells no secret.
        #[automatically_derived]
        impl ::core::fmt::Debug for #name {
            fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {
                f.debug_struct(#shown) #(#fields)* .finish()
            }
        }
    })
}

/// A `Debug` of the input that was asked for would tell them.
pub(super) fn check_input(item: &Item) -> Result<()> {
    let is_debug = |path: &&syn::Path| path.segments.last().is_some_and(|last| last.ident == "Debug");
    let secret = secrets(item).any(|field| field.input.is_some());
    match item.input_derives.iter().find(is_debug) {
        Some(path) if secret => Err(Error::new_spanned(
            path,
            "the derived `Debug` of the input would tell its secret fields: leave it out, the input has a `Debug` that tells none",
        )),
        _ => Ok(()),
    }
}
