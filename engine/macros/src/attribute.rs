//! What the derives share when they read attributes and fields.

use syn::{
    Data, DeriveInput, Error, Field, Fields, Result, Token, meta::ParseNestedMeta, punctuated::Punctuated,
    spanned::Spanned,
};

/// The named fields of a struct; an error that says `what` can be derived for otherwise.
pub(crate) fn named_fields<'a>(item: &'a DeriveInput, what: &str) -> Result<&'a Punctuated<Field, Token![,]>> {
    match &item.data {
        Data::Struct(data) => match &data.fields {
            Fields::Named(fields) => Ok(&fields.named),
            Fields::Unnamed(_) | Fields::Unit => Err(Error::new_spanned(
                &item.ident,
                format!(
                    "{what} is a struct with named fields: write `struct {} {{ .. }}`",
                    item.ident
                ),
            )),
        },
        Data::Enum(_) | Data::Union(_) => Err(Error::new_spanned(
            &item.ident,
            format!("{what} is a struct with named fields: make the choice a field of it"),
        )),
    }
}

/// An error when the item has parameters; `remedy` says what to do instead.
pub(crate) fn without_generics(item: &DeriveInput, remedy: &str) -> Result<()> {
    match item.generics.params.first() {
        None => Ok(()),
        Some(first) => Err(Error::new(first.span(), remedy)),
    }
}

/// Puts the value of an attribute into its slot; an error when it stands there twice.
pub(crate) fn once<T>(slot: &mut Option<T>, meta: &ParseNestedMeta<'_>, value: T) -> Result<()> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(meta.error(format!("`{}` stands here twice", key(meta)))),
    }
}

/// The error of an attribute that is not known; `expected` lists those that are.
pub(crate) fn unknown(meta: &ParseNestedMeta<'_>, expected: &str) -> Error {
    meta.error(format!("unknown attribute `{}`: expected {expected}", key(meta)))
}

fn key(meta: &ParseNestedMeta<'_>) -> String {
    meta.path
        .get_ident()
        .map_or_else(|| "..".to_owned(), ToString::to_string)
}

/// Collects errors, so that all that is wrong is said at once.
#[derive(Default)]
pub(crate) struct Errors(Option<Error>);

impl Errors {
    /// Keeps the error of a result.
    pub(crate) fn keep<T>(&mut self, result: Result<T>) -> Option<T> {
        match result {
            Ok(value) => return Some(value),
            Err(error) => match &mut self.0 {
                Some(all) => all.combine(error),
                None => self.0 = Some(error),
            },
        }
        None
    }

    /// All of them, if any.
    pub(crate) fn finish(self) -> Result<()> {
        self.0.map_or(Ok(()), Err)
    }
}
