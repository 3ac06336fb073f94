//! The struct and its attributes, read into values.

use proc_macro2::{Span, TokenStream};
use quote::{ToTokens, format_ident, quote_spanned};
use syn::{
    Attribute, DeriveInput, Error, Expr, Ident, LitInt, Path, Result, Token, Type, Visibility, ext::IdentExt,
    punctuated::Punctuated, spanned::Spanned,
};

use super::secret::{self, SerdeNames};
use crate::attribute::{Errors, named_fields, once, unknown, without_generics};

/// Methods of an update that a setter of the same name would hide.
const TAKEN: [&str; 9] = [
    "clone",
    "default",
    "forget",
    "from",
    "into",
    "into_fields",
    "is_empty",
    "overwritten",
    "touched",
];

/// A state.
pub(super) struct Item {
    pub(super) visibility: Visibility,
    pub(super) name: Ident,
    /// Name of the update.
    pub(super) update: Ident,
    /// Name of the update with a place for every field.
    pub(super) update_fields: Ident,
    /// Name of what an update writes to one field.
    pub(super) write: Ident,
    /// Name of the input.
    pub(super) input: Ident,
    pub(super) event: Option<Type>,
    pub(super) version: Option<LitInt>,
    /// The state of an older version.
    pub(super) from: Option<Type>,
    pub(super) input_derives: Vec<Path>,
    pub(super) fields: Vec<StateField>,
}

/// One field of a state.
pub(super) struct StateField {
    pub(super) name: Ident,
    /// Its name in stored forms.
    pub(super) label: String,
    pub(super) ty: Type,
    pub(super) docs: Vec<Attribute>,
    /// `None` is `Replace`.
    reducer: Option<Type>,
    pub(super) input: Option<Input>,
    pub(super) per_run: bool,
    pub(super) untracked: bool,
    pub(super) secret: bool,
    /// Its name in the state's JSON, as far as attributes tell.
    pub(super) json: String,
}

/// How a field comes with the input.
pub(super) enum Input {
    Required,
    Default(Expr),
}

impl Item {
    pub(super) fn parse(item: &DeriveInput) -> Result<Self> {
        let fields = named_fields(item, "a state")?;
        without_generics(
            item,
            "a state has no parameters: its fields are stored under one type; write the types out",
        )?;
        let name = &item.ident;
        let mut parsed = Self {
            visibility: item.vis.clone(),
            name: name.clone(),
            update: format_ident!("{}Update", name.unraw()),
            update_fields: format_ident!("{}UpdateFields", name.unraw()),
            write: format_ident!("__{}Write", name.unraw()),
            input: format_ident!("{}Input", name.unraw()),
            event: None,
            version: None,
            from: None,
            input_derives: Vec::new(),
            fields: Vec::new(),
        };
        let mut errors = Errors::default();
        errors.keep(parsed.read_attributes(&item.attrs));
        let names = SerdeNames::of(&item.attrs);
        parsed.fields = fields
            .iter()
            .filter_map(|field| errors.keep(StateField::parse(field, &names)))
            .collect();
        for field in &parsed.fields {
            errors.keep(parsed.overwrite_is_free(field));
        }
        errors.keep(secret::check_input(&parsed));
        errors.finish()?;
        Ok(parsed)
    }

    /// No other field has the name under which this one is overwritten.
    fn overwrite_is_free(&self, field: &StateField) -> Result<()> {
        let Some(overwrite) = field.overwrite() else {
            return Ok(());
        };
        match self.fields.iter().find(|other| overwrite == other.label) {
            None => Ok(()),
            Some(other) => Err(Error::new_spanned(
                &other.name,
                format!(
                    "`{overwrite}` is how an update overwrites `{}`: rename the field",
                    field.label
                ),
            )),
        }
    }

    fn read_attributes(&mut self, attributes: &[Attribute]) -> Result<()> {
        for attribute in attributes.iter().filter(|a| a.path().is_ident("state")) {
            attribute.parse_nested_meta(|meta| {
                if meta.path.is_ident("event") {
                    once(&mut self.event, &meta, meta.value()?.parse()?)
                } else if meta.path.is_ident("version") {
                    let version: LitInt = meta.value()?.parse()?;
                    version.base10_parse::<u32>()?;
                    once(&mut self.version, &meta, version)
                } else if meta.path.is_ident("from") {
                    once(&mut self.from, &meta, meta.value()?.parse()?)
                } else if meta.path.is_ident("input_derive") {
                    let derives;
                    syn::parenthesized!(derives in meta.input);
                    let derives = Punctuated::<Path, Token![,]>::parse_terminated(&derives)?;
                    self.input_derives.extend(derives);
                    Ok(())
                } else {
                    Err(unknown(
                        &meta,
                        "`event = Type`, `version = 2`, `from = Older` or `input_derive(Trait, ..)`",
                    ))
                }
            })?;
        }
        Ok(())
    }
}

impl StateField {
    fn parse(field: &syn::Field, all: &SerdeNames) -> Result<Self> {
        let Some(name) = field.ident.clone() else {
            return Err(Error::new_spanned(field, "a field of a state has a name"));
        };
        let label = name.unraw().to_string();
        if TAKEN.contains(&label.as_str()) {
            let message = format!("a field named `{label}` would hide `{label}` of the update: rename the field");
            return Err(Error::new_spanned(name, message));
        }
        let (mut input, mut default, mut reducer) = (None, None, None);
        let (mut per_run, mut untracked, mut secret) = (None, None, None);
        for attribute in field.attrs.iter().filter(|a| a.path().is_ident("state")) {
            attribute.parse_nested_meta(|meta| {
                if meta.path.is_ident("input") {
                    once(&mut input, &meta, ())
                } else if meta.path.is_ident("default") {
                    let key = meta.path.span();
                    once(&mut default, &meta, (key, meta.value()?.parse()?))
                } else if meta.path.is_ident("reducer") {
                    once(&mut reducer, &meta, meta.value()?.parse()?)
                } else if meta.path.is_ident("per_run") {
                    once(&mut per_run, &meta, ())
                } else if meta.path.is_ident("untracked") {
                    once(&mut untracked, &meta, ())
                } else if meta.path.is_ident("secret") {
                    once(&mut secret, &meta, ())
                } else {
                    Err(unknown(
                        &meta,
                        "`input`, `default = value`, `reducer = Type`, `per_run`, `untracked` or `secret`",
                    ))
                }
            })?;
        }
        let names = SerdeNames::of(&field.attrs);
        if secret.is_some() {
            names.check(field)?;
        }
        Ok(Self {
            name,
            json: names.name(all, &label),
            label,
            ty: field.ty.clone(),
            docs: field
                .attrs
                .iter()
                .filter(|a| a.path().is_ident("doc"))
                .cloned()
                .collect(),
            reducer,
            input: input_of(input.is_some(), default)?,
            per_run: per_run.is_some(),
            untracked: untracked.is_some(),
            secret: secret.is_some(),
        })
    }

    /// The field's reducer as an implementation of `Reducer`.
    pub(super) fn reducer(&self) -> TokenStream {
        let (span, ty) = (self.reducer_span(), &self.ty);
        let reducer = self.reducer.as_ref().map_or_else(
            || quote_spanned!(span=> ::stepgraph::Replace),
            ToTokens::to_token_stream,
        );
        quote_spanned!(span=> <#reducer as ::stepgraph::Reducer<#ty>>)
    }

    /// What updates give for the field.
    pub(super) fn update_type(&self) -> TokenStream {
        match &self.reducer {
            Some(_) => {
                let reducer = self.reducer();
                quote_spanned!(self.reducer_span()=> #reducer::Update)
            }
            None => self.ty.to_token_stream(),
        }
    }

    /// Whether its type says that it may be left out of JSON.
    pub(super) fn is_option(&self) -> bool {
        match &self.ty {
            Type::Path(path) => path.path.segments.last().is_some_and(|last| last.ident == "Option"),
            _ => false,
        }
    }

    /// The name under which an update overwrites the field, if it has a reducer that folds.
    pub(super) fn overwrite(&self) -> Option<Ident> {
        let replaces = |reducer: &Type| match reducer {
            Type::Path(path) => path.path.segments.last().is_some_and(|last| last.ident == "Replace"),
            _ => false,
        };
        let reducer = self.reducer.as_ref().filter(|reducer| !replaces(reducer))?;
        Some(Ident::new(&format!("overwrite_{}", self.label), reducer.span()))
    }

    /// Where a reducer that does not fit is told of.
    pub(super) fn reducer_span(&self) -> Span {
        self.reducer.as_ref().map_or_else(|| self.ty.span(), Spanned::span)
    }

    /// The value of the field when nothing was given.
    pub(super) fn default_value(&self) -> TokenStream {
        let ty = &self.ty;
        quote_spanned!(ty.span()=> <#ty as ::core::default::Default>::default())
    }
}

fn input_of(is_input: bool, default: Option<(Span, Expr)>) -> Result<Option<Input>> {
    match (is_input, default) {
        (true, Some((_, value))) => Ok(Some(Input::Default(value))),
        (true, None) => Ok(Some(Input::Required)),
        (false, None) => Ok(None),
        (false, Some((key, _))) => Err(Error::new(
            key,
            "`default` is the value of an input that was left out: write `input, default = ..`, or remove it; \
             other fields begin with their type's default",
        )),
    }
}
