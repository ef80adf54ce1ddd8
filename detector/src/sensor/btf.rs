//! Finds the offsets of members of kernel structs, and the prototypes of kernel functions, in the kernel's own type
//! information (BTF).
//!
//! The format is described in Documentation/bpf/btf.rst: a header, then a table of types (each has a fixed part and a
//! tail whose length depends on its kind), then strings. Only what is needed is read: the offsets of members of structs
//! and unions, and the parameters and return types of functions. The bytes are not trusted: damaged ones cause an
//! error.

use std::collections::HashSet;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// The file in which a kernel built with `CONFIG_DEBUG_INFO_BTF` shows its types.
const RUNNING_KERNEL: &str = "/sys/kernel/btf/vmlinux";

const MAGIC: u16 = 0xeb9f;
const HEADER_LEN: usize = 24;
/// The size of `struct btf_type`: name, info, size or type.
const TYPE_LEN: usize = 12;
/// The size of `struct btf_member`: name, type, offset.
const MEMBER_LEN: usize = 12;
/// The size of `struct btf_param`: name, type.
const PARAMETER_LEN: usize = 8;
/// The size of `struct btf_enum`: name, value.
const ENUMERATOR_LEN: usize = 8;
/// The maximum depth of nested modifiers and of nested anonymous structs. Types with a greater depth form a loop. This
/// is the kernel's own limit (`MAX_RESOLVE_DEPTH`, kernel/bpf/btf.c).
const MAX_DEPTH: usize = 32;

/// The `BTF_KIND_` constants that are used here.
mod kind {
    pub(super) const INT: u8 = 1;
    pub(super) const POINTER: u8 = 2;
    pub(super) const ARRAY: u8 = 3;
    pub(super) const STRUCT: u8 = 4;
    pub(super) const UNION: u8 = 5;
    pub(super) const ENUM: u8 = 6;
    pub(super) const FORWARD: u8 = 7;
    pub(super) const TYPEDEF: u8 = 8;
    pub(super) const VOLATILE: u8 = 9;
    pub(super) const CONST: u8 = 10;
    pub(super) const RESTRICT: u8 = 11;
    pub(super) const FUNC: u8 = 12;
    pub(super) const FUNC_PROTO: u8 = 13;
    pub(super) const VAR: u8 = 14;
    pub(super) const DATASEC: u8 = 15;
    pub(super) const FLOAT: u8 = 16;
    pub(super) const DECL_TAG: u8 = 17;
    pub(super) const TYPE_TAG: u8 = 18;
    pub(super) const ENUM64: u8 = 19;

    /// The number of bytes after the fixed part of a type with `count` elements. Returns `None` if the kind is not
    /// known.
    pub(super) fn tail(kind: u8, count: usize) -> Option<usize> {
        Some(match kind {
            INT | VAR | DECL_TAG => 4,
            ARRAY => 12,
            STRUCT | UNION | DATASEC | ENUM64 => 12 * count,
            ENUM | FUNC_PROTO => 8 * count,
            POINTER | FORWARD | TYPEDEF | VOLATILE | CONST | RESTRICT | FUNC | FLOAT | TYPE_TAG => 0,
            _ => return None,
        })
    }
}

/// Why a query about the kernel's types failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file cannot be read.
    #[error("cannot read {path}: {source}", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The error that the system returned.
        source: std::io::Error,
    },
    /// The bytes are not BTF, or are damaged.
    #[error("not valid BTF: {0}")]
    Malformed(String),
    /// The BTF is that of a newer kernel.
    #[error("BTF type {id} is of kind {kind}, which this version does not know; a newer version of detector is needed")]
    UnknownKind {
        /// The id of the type.
        id: u32,
        /// The kind of the type.
        kind: u8,
    },
    /// The kernel has no such struct.
    #[error("kernel BTF has no struct {structure}")]
    NoStruct {
        /// Its name.
        structure: String,
    },
    /// The struct has no such member.
    #[error("kernel BTF has no member {member} in struct {structure} (tried {tried})")]
    NoMember {
        /// The struct.
        structure: String,
        /// What was asked for.
        member: String,
        /// The alternatives that were tried, and the step at which each failed.
        tried: String,
    },
    /// The kernel has no such function, or the function has no such argument.
    #[error("kernel BTF has no argument {argument} of a function {function}")]
    NoArgument {
        /// The function.
        function: String,
        /// What was asked for.
        argument: String,
    },
    /// The kernel has no such enumeration, or no such name in it.
    #[error("kernel BTF has no {name} in enum {enumeration}")]
    NoEnumerator {
        /// The enumeration.
        enumeration: String,
        /// What was asked for.
        name: String,
    },
    /// Several queries failed.
    #[error("this kernel's structs are not as the probes know them: {}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Missing(Vec<Error>),
}

/// The types of a kernel.
pub struct Btf {
    data: Vec<u8>,
    strings: Range<usize>,
    /// The first type is type 1. Type 0 is `void`, which is not stored.
    types: Vec<Type>,
}

#[derive(Clone, Copy)]
struct Type {
    name: u32,
    kind: u8,
    /// Whether the members of a struct say which of them are bit-fields.
    kind_flag: bool,
    count: u32,
    /// The size of a struct, or the id of the type that a modifier applies to.
    size_or_type: u32,
    /// The position in the data at which the tail starts.
    tail: usize,
}

/// The parameters and the return type of a function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Function {
    /// The return type, in C notation.
    pub returns: String,
    /// The parameters, in order.
    pub parameters: Vec<Parameter>,
}

/// A parameter of a function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parameter {
    /// Its name.
    pub name: String,
    /// Its type in C notation, such as `struct file *`.
    pub kind: String,
}

/// A member that was found: its position and its type.
#[derive(Clone, Copy)]
struct Member {
    /// The offset in bits from the start of the struct that was searched.
    bits: u64,
    type_id: u32,
    bitfield: bool,
}

impl Btf {
    /// The types of the running kernel.
    ///
    /// # Errors
    ///
    /// See [`open`](Self::open).
    pub fn of_running_kernel() -> Result<Self, Error> {
        Self::open(Path::new(RUNNING_KERNEL))
    }

    /// The types in a file.
    ///
    /// # Errors
    ///
    /// The file cannot be read or [parsed](Self::parse).
    pub fn open(path: &Path) -> Result<Self, Error> {
        let data = std::fs::read(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
        Self::parse(data)
    }

    /// The types in raw BTF.
    ///
    /// # Errors
    ///
    /// The bytes are not BTF, are of the other byte order, are damaged, or have a kind of type that is not known.
    pub fn parse(data: Vec<u8>) -> Result<Self, Error> {
        let malformed = |why: &str| Error::Malformed(why.to_owned());
        if data.len() < HEADER_LEN {
            return Err(malformed("shorter than its header"));
        }
        match u16::from_ne_bytes([data[0], data[1]]) {
            MAGIC => {}
            magic if magic.swap_bytes() == MAGIC => return Err(malformed("of a machine with the other byte order")),
            magic => return Err(Error::Malformed(format!("starts with {magic:#06x} instead of {MAGIC:#06x}"))),
        }
        if data[2] != 1 {
            return Err(Error::Malformed(format!("of version {}; only version 1 is known", data[2])));
        }
        let header =
            |at| word(&data, at).map(|value| value as usize).ok_or_else(|| malformed("shorter than its header"));
        // Offsets count from the end of the header, which may become longer in later versions.
        let section = |offset: usize, what: &str| {
            let start = header(4)?.checked_add(header(offset)?);
            let range = start.and_then(|start| Some(start..start.checked_add(header(offset + 4).ok()?)?));
            range
                .filter(|range| range.end <= data.len())
                .ok_or_else(|| Error::Malformed(format!("its {what} lie outside of its {} bytes", data.len())))
        };
        let (table, strings) = (section(8, "types")?, section(16, "strings")?);
        let types = types(&data, table)?;
        Ok(Self { data, strings, types })
    }

    /// Adds the types of a module of the same kernel. `data` is the module's raw BTF, in which the numbers of types and
    /// strings continue those of the kernel.
    ///
    /// # Errors
    ///
    /// As for [`parse`](Self::parse).
    pub fn with_module(mut self, data: Vec<u8>) -> Result<Self, Error> {
        let module = Self::parse(data)?;
        let shift = self.data.len();
        self.types.extend(module.types.into_iter().map(|found| Type { tail: found.tail + shift, ..found }));
        let strings = [&self.data[self.strings.clone()], &module.data[module.strings]].concat();
        self.data.extend_from_slice(&module.data);
        self.strings = self.data.len()..self.data.len() + strings.len();
        self.data.extend_from_slice(&strings);
        Ok(self)
    }

    /// The offset in bytes of a member from the start of a struct. `members` is a member, or a member of a member
    /// (`f_path.dentry`), or several of these separated by `|`, of which the first that exists is used. As in C, a
    /// member is also found if it is in an anonymous struct or union.
    ///
    /// # Errors
    ///
    /// There is no such struct, or it has none of the members, or the member is a bit-field, which has no offset in
    /// bytes.
    pub fn member_offset(&self, structure: &str, members: &str) -> Result<u64, Error> {
        let id = self.find(kind::STRUCT, structure).ok_or_else(|| no_struct(structure))?;
        let mut tried = Vec::new();
        for path in members.split('|') {
            match self.walk(id, structure, path) {
                Ok(offset) => return Ok(offset),
                Err(why) => tried.push(format!("{path}: {why}")),
            }
        }
        Err(Error::NoMember { structure: structure.to_owned(), member: members.to_owned(), tried: tried.join(", ") })
    }

    /// The size of a struct in bytes.
    ///
    /// # Errors
    ///
    /// There is no such struct.
    pub fn struct_size(&self, structure: &str) -> Result<u64, Error> {
        let id = self.find(kind::STRUCT, structure).ok_or_else(|| no_struct(structure))?;
        self.get(id).map(|found| found.size_or_type.into()).ok_or_else(|| no_struct(structure))
    }

    /// Whether the kernel describes a function of this name, so that it can be traced with its types.
    pub fn has_func(&self, name: &str) -> bool {
        self.find(kind::FUNC, name).is_some()
    }

    /// The position of a function's argument, counted from 0.
    ///
    /// # Errors
    ///
    /// There is no such function, or it has no argument of this name.
    pub fn argument(&self, function: &str, argument: &str) -> Result<u64, Error> {
        let position = || self.function(function)?.parameters.iter().position(|parameter| parameter.name == argument);
        position()
            .and_then(|position| u64::try_from(position).ok())
            .ok_or_else(|| Error::NoArgument { function: function.to_owned(), argument: argument.to_owned() })
    }

    /// The parameters and the return type of a function. Returns `None` if the kernel describes no function of this
    /// name.
    pub fn function(&self, name: &str) -> Option<Function> {
        let function = self.get(self.find(kind::FUNC, name)?)?;
        let prototype = self.get(function.size_or_type).filter(|found| found.kind == kind::FUNC_PROTO)?;
        let parameters = (0..prototype.count as usize).map(|index| {
            let at = prototype.tail + index * PARAMETER_LEN;
            let (name, type_id) = (word(&self.data, at)?, word(&self.data, at + 4)?);
            Some(Parameter { name: self.text(name)?, kind: self.type_name(type_id, 0)? })
        });
        Some(Function {
            returns: self.type_name(prototype.size_or_type, 0)?,
            parameters: parameters.collect::<Option<_>>()?,
        })
    }

    /// A type in C notation, without the attributes of pointers (`__user`). Returns `None` if the table is damaged.
    fn type_name(&self, id: u32, depth: usize) -> Option<String> {
        if depth > MAX_DEPTH {
            return None;
        }
        if id == 0 {
            return Some("void".to_owned());
        }
        let found = self.get(id)?;
        let inner = || self.type_name(found.size_or_type, depth + 1);
        let is_pointer = || self.get(found.size_or_type).is_some_and(|inner| inner.kind == kind::POINTER);
        let name = self.text(found.name)?;
        Some(match found.kind {
            kind::POINTER => format!("{} *", inner()?),
            // Here the pointer itself is constant, which does not matter to the caller.
            kind::CONST if is_pointer() => inner()?,
            kind::CONST => format!("const {}", inner()?),
            kind::VOLATILE | kind::RESTRICT | kind::TYPE_TAG => inner()?,
            kind::FORWARD if found.kind_flag => format!("union {name}"),
            kind::STRUCT | kind::FORWARD => format!("struct {name}"),
            kind::UNION => format!("union {name}"),
            kind::ENUM | kind::ENUM64 => format!("enum {name}"),
            // This is a function behind a pointer. Its own types are not spelled out.
            kind::FUNC_PROTO => "function".to_owned(),
            _ => name,
        })
    }

    /// The value of a name in an enumeration that has no negative values.
    ///
    /// # Errors
    ///
    /// There is no such enumeration, or it has no such name.
    pub fn enumerator(&self, enumeration: &str, name: &str) -> Result<u32, Error> {
        let value = || {
            let found = self.get(self.find(kind::ENUM, enumeration)?)?;
            let mut places = (0..found.count as usize).map(|index| found.tail + index * ENUMERATOR_LEN);
            let at = places.find(|&at| word(&self.data, at).is_some_and(|at| self.is_named(at, name)))?;
            word(&self.data, at + 4)
        };
        value().ok_or_else(|| Error::NoEnumerator { enumeration: enumeration.to_owned(), name: name.to_owned() })
    }

    /// The id of the first type of this kind and name.
    fn find(&self, kind: u8, name: &str) -> Option<u32> {
        let index = self.types.iter().position(|found| found.kind == kind && self.is_named(found.name, name))?;
        u32::try_from(index + 1).ok()
    }

    fn get(&self, id: u32) -> Option<&Type> {
        self.types.get((id as usize).checked_sub(1)?)
    }

    /// The struct or union behind typedefs, `const` and the like.
    fn composite(&self, mut id: u32) -> Option<&Type> {
        for _ in 0..MAX_DEPTH {
            let found = self.get(id)?;
            match found.kind {
                kind::STRUCT | kind::UNION => return Some(found),
                kind::TYPEDEF | kind::VOLATILE | kind::CONST | kind::RESTRICT | kind::TYPE_TAG => {
                    id = found.size_or_type;
                }
                _ => return None,
            }
        }
        None
    }

    /// Follows `path` from the struct `id` and returns the offset in bytes. The error says why that is not possible.
    fn walk(&self, mut id: u32, structure: &str, path: &str) -> Result<u64, String> {
        let mut bits = 0;
        let mut within = structure;
        for name in path.split('.') {
            let parent = self.composite(id).ok_or_else(|| format!("{within} is no struct"))?;
            let member =
                self.member(parent, name, 0, &mut HashSet::new()).ok_or_else(|| format!("no {name} in {within}"))?;
            if member.bitfield || !member.bits.is_multiple_of(8) {
                return Err(format!("{name} is a bit-field"));
            }
            bits += member.bits;
            id = member.type_id;
            within = name;
        }
        Ok(bits / 8)
    }

    /// The member of a struct or union, or of an anonymous struct or union in it. `searched` has the structs that were
    /// searched in vain, by the positions of their tails: in damaged tables, many lead to the same ones.
    fn member(&self, parent: &Type, name: &str, depth: usize, searched: &mut HashSet<usize>) -> Option<Member> {
        if depth > MAX_DEPTH || !searched.insert(parent.tail) {
            return None;
        }
        (0..parent.count as usize).find_map(|index| {
            let at = parent.tail + index * MEMBER_LEN;
            let (name_at, type_id, offset) =
                (word(&self.data, at)?, word(&self.data, at + 4)?, word(&self.data, at + 8)?);
            // With the flag, the upper 8 bits of an offset are the size of a bit-field, or 0 if the member is not a
            // bit-field.
            let (bits, bitfield) =
                if parent.kind_flag { (offset & 0x00ff_ffff, offset >> 24 != 0) } else { (offset, false) };
            let found = Member { bits: bits.into(), type_id, bitfield };
            if name_at != 0 {
                return self.is_named(name_at, name).then_some(found);
            }
            let inner = self.member(self.composite(type_id)?, name, depth + 1, searched)?;
            Some(Member { bits: found.bits + inner.bits, ..inner })
        })
    }

    /// The string at `offset`.
    fn text(&self, offset: u32) -> Option<String> {
        let rest = self.data[self.strings.clone()].get(offset as usize..)?;
        let length = rest.iter().position(|&byte| byte == 0)?;
        Some(String::from_utf8_lossy(&rest[..length]).into_owned())
    }

    /// Whether the string at `offset` is `name`.
    fn is_named(&self, offset: u32, name: &str) -> bool {
        let strings = &self.data[self.strings.clone()];
        let rest = strings.get(offset as usize..).and_then(|text| text.strip_prefix(name.as_bytes()));
        rest.is_some_and(|rest| rest.first() == Some(&0))
    }
}

/// Reads the table of types. The caller has checked that the table lies within the data.
fn types(data: &[u8], table: Range<usize>) -> Result<Vec<Type>, Error> {
    let cut = |id: u32| Error::Malformed(format!("type {id} is cut off"));
    // On average a type with its tail takes 25 to 30 bytes.
    let mut types = Vec::with_capacity(table.len() / 24);
    let (mut at, mut id) = (table.start, 0);
    while at < table.end {
        id += 1;
        let field = |offset| word(data, at + offset).ok_or_else(|| cut(id));
        let (name, info, size_or_type) = (field(0)?, field(4)?, field(8)?);
        let kind = (info >> 24 & 0x1f) as u8;
        let count = info & 0xffff;
        let tail = kind::tail(kind, count as usize).ok_or(Error::UnknownKind { id, kind })?;
        types.push(Type { name, kind, kind_flag: info >> 31 != 0, count, size_or_type, tail: at + TYPE_LEN });
        at += TYPE_LEN + tail;
    }
    if at == table.end { Ok(types) } else { Err(cut(id)) }
}

/// The 32-bit number at `at`.
fn word(data: &[u8], at: usize) -> Option<u32> {
    let bytes = data.get(at..)?.first_chunk()?;
    Some(u32::from_ne_bytes(*bytes))
}

fn no_struct(structure: &str) -> Error {
    Error::NoStruct { structure: structure.to_owned() }
}
