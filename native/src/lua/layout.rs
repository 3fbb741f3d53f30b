//! Where the fields are in what is sent flat: asked for by name, once, and kept.
//!
//! Owns: places by name. Must not know: what a field holds.

/// What a flat reply consists of: the header, as many refusals as that says, then records.
pub struct Reply {
    pub header: Fields,
    pub refusal: Fields,
    pub record: Fields,
}

/// The names of fields, in the order in which they are sent.
pub struct Fields {
    /// What they are the fields of, for people.
    of: String,
    names: Vec<String>,
}

/// Where those fields are that were asked for, among all `width` of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Places<const N: usize> {
    pub width: usize,
    pub at: [usize; N],
}

impl Fields {
    pub fn new(of: String, names: Vec<String>) -> Self {
        Self { of, names }
    }

    /// Where these are, among others that Rust needs not.
    ///
    /// # Errors
    /// Says which one is missing.
    pub fn find<const N: usize>(&self, wanted: [&str; N]) -> Result<Places<N>, String> {
        let mut at = [0; N];
        for (at, wanted) in at.iter_mut().zip(wanted) {
            *at = self.names.iter().position(|name| name == wanted).ok_or_else(|| {
                format!("lua/protocol.json: {} lacks `{wanted}`, which native/ needs; it has {}", self.of, self.told())
            })?;
        }
        Ok(Places { width: self.names.len(), at })
    }

    /// Where these are, and that there are no others: Rust fills them all.
    ///
    /// # Errors
    /// Says which one is missing, or is one too many.
    pub fn find_all<const N: usize>(&self, wanted: [&str; N]) -> Result<Places<N>, String> {
        match self.names.iter().find(|name| !wanted.contains(&name.as_str())) {
            Some(other) => Err(format!("lua/protocol.json: {} has `{other}`, which native/ does not fill", self.of)),
            None => self.find(wanted),
        }
    }

    fn told(&self) -> String {
        self.names.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields() -> Fields {
        Fields::new("the record of the reply of step".to_owned(), ["id", "token", "name"].map(str::to_owned).to_vec())
    }

    #[test]
    fn fields_are_found_wherever_they_are() {
        assert_eq!(fields().find(["name", "id"]), Ok(Places { width: 3, at: [2, 0] }));
        assert_eq!(fields().find_all(["name", "id", "token"]), Ok(Places { width: 3, at: [2, 0, 1] }));
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let missing = fields().find(["id", "lane"]).unwrap_err();
        assert_eq!(
            missing,
            "lua/protocol.json: the record of the reply of step lacks `lane`, which native/ needs; it has id, token, name"
        );
        let unknown = fields().find_all(["id", "token"]).unwrap_err();
        assert!(unknown.contains("has `name`, which native/ does not fill"), "{unknown}");
    }
}
