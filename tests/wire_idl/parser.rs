//! A reader of Thrift's interface language: as much of it as an interface without constants needs.

use std::collections::BTreeMap;

/// Types by file and name, methods by service and name. Type references are resolved: `string` stands for binary too,
/// other files' names lose their prefix.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Interface {
    pub types: BTreeMap<(String, String), Type>,
    pub methods: BTreeMap<(String, String), Method>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Type {
    /// `struct`, `union`, `exception` or `enum`.
    pub shape: &'static str,
    /// In the order of the declaration; an enum's symbols are fields without a type.
    pub fields: Vec<Field>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Field {
    pub id: i64,
    pub name: String,
    /// `required`, `optional` or `default`; in a union always `optional`.
    pub need: &'static str,
    pub kind: String,
    /// Encoded.
    pub default: Option<Vec<u8>>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Method {
    pub success: String,
    pub args: Vec<Field>,
    pub throws: Vec<(i64, String)>,
}

struct Parser<'a> {
    file: &'a str,
    tokens: std::iter::Peekable<std::vec::IntoIter<String>>,
    typedefs: &'a mut BTreeMap<(String, String), String>,
    interface: &'a mut Interface,
}

/// Files in an order in which none uses typedefs or enum symbols of a later one.
pub fn parse(files: &[(&str, String)]) -> Interface {
    let mut interface = Interface::default();
    let mut typedefs = BTreeMap::new();
    for (file, text) in files {
        let tokens = tokens(text).into_iter().peekable();
        Parser { file, tokens, typedefs: &mut typedefs, interface: &mut interface }.file();
    }
    interface
}

fn tokens(text: &str) -> Vec<String> {
    let mut tokens = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        if let Some(comment) = rest.strip_prefix("/*") {
            rest = comment.split_once("*/").expect("a comment ends").1;
        } else if rest.starts_with("//") || first == '#' {
            rest = rest.split_once('\n').map_or("", |(_, next)| next);
        } else if first.is_whitespace() || first == ',' || first == ';' {
            // Separators of lists are optional and mean nothing.
            rest = &rest[first.len_utf8()..];
        } else if first == '"' {
            let (literal, next) = rest[1..].split_once('"').expect("a literal ends");
            tokens.push(format!("\"{literal}\""));
            rest = next;
        } else {
            let word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
            let end = if word(first) { rest.find(|c| !word(c)).unwrap_or(rest.len()) } else { first.len_utf8() };
            tokens.push(rest[..end].to_owned());
            rest = &rest[end..];
        }
    }
    tokens
}

impl Parser<'_> {
    fn next(&mut self) -> String {
        self.tokens.next().expect("the file goes on")
    }

    fn accept(&mut self, token: &str) -> bool {
        self.tokens.next_if(|next| next == token).is_some()
    }

    fn expect(&mut self, token: &str) {
        let found = self.next();
        assert_eq!(found, token, "in {}", self.file);
    }

    fn file(&mut self) {
        while let Some(word) = self.tokens.next() {
            match word.as_str() {
                "include" => drop(self.next()),
                "namespace" => drop((self.next(), self.next())),
                "typedef" => {
                    let kind = self.kind();
                    let name = self.next();
                    assert!(self.typedefs.insert((self.file.to_owned(), name), kind).is_none());
                }
                "enum" => {
                    let name = self.next();
                    let fields = self.symbols();
                    self.declare(name, Type { shape: "enum", fields });
                }
                "struct" => self.fields_of("struct"),
                "union" => self.fields_of("union"),
                "exception" => self.fields_of("exception"),
                "service" => self.service(),
                other => panic!("{}: unexpected `{other}`", self.file),
            }
        }
    }

    fn declare(&mut self, name: String, declared: Type) {
        let before = self.interface.types.insert((self.file.to_owned(), name.clone()), declared);
        assert!(before.is_none(), "{name} is declared twice");
    }

    fn symbols(&mut self) -> Vec<Field> {
        let mut symbols = Vec::new();
        self.expect("{");
        while !self.accept("}") {
            let name = self.next();
            self.expect("=");
            let id = self.next().parse().expect("a symbol's number");
            symbols.push(Field { id, name, need: "required", kind: String::new(), default: None });
        }
        symbols
    }

    fn fields_of(&mut self, shape: &'static str) {
        let name = self.next();
        self.expect("{");
        let mut fields = self.fields("}");
        if shape == "union" {
            for field in &mut fields {
                assert_eq!(field.need, "default", "a union's field {}", field.name);
                field.need = "optional";
            }
        }
        self.declare(name, Type { shape, fields });
    }

    fn fields(&mut self, end: &str) -> Vec<Field> {
        let mut fields = Vec::new();
        while !self.accept(end) {
            let id = self.next().parse().expect("a field's number");
            self.expect(":");
            let need = match () {
                () if self.accept("required") => "required",
                () if self.accept("optional") => "optional",
                () => "default",
            };
            let kind = self.kind();
            let name = self.next();
            let default = self.accept("=").then(|| {
                let value = self.next();
                self.constant(&value)
            });
            fields.push(Field { id, name, need, kind, default });
        }
        fields
    }

    /// Only symbols serve as defaults.
    fn constant(&self, value: &str) -> Vec<u8> {
        let (name, symbol) = value.rsplit_once('.').expect("a symbol of an enum");
        let (file, name) = self.place(name);
        let declared = &self.interface.types[&(file, name)];
        let symbol = declared.fields.iter().find(|field| field.name == symbol).expect("a declared symbol");
        i32::try_from(symbol.id).expect("symbols are 32 bits").to_be_bytes().to_vec()
    }

    fn place(&self, name: &str) -> (String, String) {
        let (file, name) = name.split_once('.').unwrap_or((self.file, name));
        (file.to_owned(), name.to_owned())
    }

    fn kind(&mut self) -> String {
        let name = self.next();
        match name.as_str() {
            "list" | "set" => {
                self.expect("<");
                let element = self.kind();
                self.expect(">");
                format!("{name}<{element}>")
            }
            "map" => {
                self.expect("<");
                let (key, value) = (self.kind(), self.kind());
                self.expect(">");
                format!("map<{key},{value}>")
            }
            "binary" => "string".to_owned(),
            _ => {
                let place = self.place(&name);
                self.typedefs.get(&place).cloned().unwrap_or(place.1)
            }
        }
    }

    fn service(&mut self) {
        let service = self.next();
        self.expect("{");
        while !self.accept("}") {
            let success = self.kind();
            let name = self.next();
            self.expect("(");
            let args = self.fields(")");
            let mut throws = Vec::new();
            if self.accept("throws") {
                self.expect("(");
                throws = self.fields(")").into_iter().map(|field| (field.id, field.kind)).collect();
            }
            let before = self.interface.methods.insert((service.clone(), name), Method { success, args, throws });
            assert!(before.is_none(), "a method of {service} is declared twice");
        }
    }
}
