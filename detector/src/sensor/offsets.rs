//! The values of the probes' layout globals on one kernel, resolved from the table of [`detector_common::offsets`].

use detector_common::offsets::ABSENT;

use super::btf::{Btf, Error};

/// A row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// The global of the BPF object that receives the value.
    pub global: &'static str,
    /// The kernel struct or function.
    pub subject: &'static str,
    /// Which property of it is the value.
    pub value: Value,
}

/// The property of a kernel struct or function that a [`Row`] asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value {
    /// The offset of a member in a struct, in bytes. See [`Btf::member_offset`].
    Member(&'static str),
    /// The same, or [`ABSENT`] if the kernel has no such member or struct.
    Optional(&'static str),
    /// The size of a struct in bytes.
    Size,
    /// The position of a function's argument, counted from 0. It is also 0 if the kernel has no such function.
    Argument(&'static str),
    /// The value of a name in an enumeration, or [`ABSENT`] if the kernel has no such name.
    Enumerator(&'static str),
}

macro_rules! rows {
    (@value sizeof) => { Value::Size };
    (@value (optional $member:literal)) => { Value::Optional($member) };
    (@value (argument $name:literal)) => { Value::Argument($name) };
    (@value (enumerator $name:literal)) => { Value::Enumerator($name) };
    (@value $member:literal) => { Value::Member($member) };
    ($($global:ident: $subject:literal $value:tt;)*) => {
        /// The table.
        pub const ROWS: &[Row] = &[$(
            Row { global: stringify!($global), subject: $subject, value: rows!(@value $value) },
        )*];
    };
}
detector_common::for_each_offset!(rows);

impl Row {
    /// The value on a kernel.
    ///
    /// # Errors
    ///
    /// The kernel has no such struct or member, or a function of this name without such an argument.
    pub fn resolve(&self, kernel: &Btf) -> Result<u64, Error> {
        match self.value {
            Value::Member(member) => kernel.member_offset(self.subject, member),
            Value::Optional(member) => match kernel.member_offset(self.subject, member) {
                Err(Error::NoMember { .. } | Error::NoStruct { .. }) => Ok(ABSENT),
                offset => offset,
            },
            Value::Size => kernel.struct_size(self.subject),
            Value::Argument(_) if !kernel.has_func(self.subject) => Ok(0),
            Value::Argument(name) => kernel.argument(self.subject, name),
            Value::Enumerator(name) => Ok(kernel.enumerator(self.subject, name).map_or(ABSENT, u64::from)),
        }
    }
}

/// Each global with its value on a kernel.
///
/// # Errors
///
/// Returns [`Error::Missing`] with everything that this kernel lacks.
pub fn resolve(kernel: &Btf) -> Result<Vec<(&'static str, u64)>, Error> {
    let mut missing = Vec::new();
    let mut values = Vec::with_capacity(ROWS.len());
    for row in ROWS {
        match row.resolve(kernel) {
            Ok(value) => values.push((row.global, value)),
            Err(why) => missing.push(why),
        }
    }
    if missing.is_empty() { Ok(values) } else { Err(Error::Missing(missing)) }
}
