//! Templates over a group.

use std::collections::BTreeMap;

use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, ErrorKind, UndefinedBehavior};

use crate::types::error::{Reason, Result};

use super::handle::Store;
use super::view::View;

impl Store {
    /// Renders a template with the entries of a group: each key is a variable, `entries` maps every key to its
    /// value, for keys that are no names. The syntax is that of [minijinja](https://docs.rs/minijinja). Values that
    /// are not UTF-8 show as U+FFFD. A variable that is not there is an error that names it.
    ///
    /// ```
    /// use watchkeep::{ErrorKind, Store};
    /// let store = Store::open_in_memory()?;
    /// store.set("mail", "name", "Ada")?;
    /// store.set("mail", "x-id", "7")?;
    /// assert_eq!(store.render("Dear {{ name }} ({{ entries['x-id'] }})", "mail")?, "Dear Ada (7)");
    /// let refused = store.render("Dear {{ nome }}", "mail").unwrap_err();
    /// assert_eq!(refused.kind(), ErrorKind::Template);
    /// assert!(refused.to_string().contains("nome"));
    /// assert_eq!(store.render_lenient("Dear {{ nome }}", "mail")?, "Dear ");
    /// # Ok::<(), watchkeep::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// `Template`, and as [`get`](Store::get).
    pub fn render(&self, template: &str, group: &str) -> Result<String> {
        render(&self.lasting_view(), template, group, UndefinedBehavior::Strict)
    }

    /// As [`render`](Store::render), but a variable that is not there is empty.
    ///
    /// # Errors
    ///
    /// As [`render`](Store::render).
    pub fn render_lenient(&self, template: &str, group: &str) -> Result<String> {
        render(&self.lasting_view(), template, group, UndefinedBehavior::Chainable)
    }
}

fn render(view: &View<'_>, template: &str, group: &str, undefined: UndefinedBehavior) -> Result<String> {
    let values = view
        .entries(group)
        .map(|entry| entry.map(|entry| (entry.key, entry.value.to_string_lossy().into_owned())))
        .collect::<Result<BTreeMap<_, _>>>()?;
    let mut variables: BTreeMap<String, minijinja::Value> =
        values.iter().map(|(key, value)| (key.clone(), value.clone().into())).collect();
    // A key of that name comes first: it is the group that is rendered.
    variables.entry("entries".to_owned()).or_insert_with(|| minijinja::Value::from_pairs(values));

    let mut environment = Environment::new();
    environment.set_undefined_behavior(undefined);
    environment.set_syntax(SyntaxConfig::builder().keep_trailing_newline(true).build().unwrap_or_default());
    environment.set_debug(true);
    environment
        .render_named_str("template", template, minijinja::Value::from_pairs(variables))
        .map_err(|cause| Reason::Template { what: explain(template, group, &cause), cause }.into())
}

/// What is wrong, with the place in the template.
fn explain(template: &str, group: &str, error: &minijinja::Error) -> String {
    let line = error.line().map_or_else(String::new, |line| format!(" in line {line}"));
    let place = error.range().and_then(|range| template.get(range)).map(str::trim);
    match (error.kind(), place) {
        (ErrorKind::UndefinedError, Some(name)) => {
            format!("{name:?}{line} is not a key of group {group:?}; set it, or render leniently")
        }
        _ => format!("{error}"),
    }
}
