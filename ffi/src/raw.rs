//! Arguments as C gives them: pointers, lengths, text. Every function that takes them says in its
//! header comment what they must point to; here they are looked at as far as that is possible.

use std::ffi::{CStr, c_char};
use std::mem::MaybeUninit;

use crate::status::{Failure, kvx_status};

/// The elements that `pointer` points to.
///
/// # Safety
/// `pointer` is null, or points to `len` elements that nobody changes during `'a`.
pub(crate) unsafe fn slice<'a, T>(
    argument: &str,
    pointer: *const T,
    len: usize,
) -> Result<&'a [T], Failure> {
    if len == 0 {
        return Ok(&[]);
    }
    check(argument, pointer)?;
    if len.checked_mul(size_of::<T>()).is_none_or(|bytes| bytes > isize::MAX as usize) {
        return Err(Failure::invalid(argument, "is longer than memory"));
    }
    // SAFETY: not null, aligned, no longer than memory; the rest is the caller's word.
    Ok(unsafe { std::slice::from_raw_parts(pointer, len) })
}

/// The struct that `pointer` points to.
///
/// # Safety
/// `pointer` is null, or points to a `T` that nobody changes during `'a`.
pub(crate) unsafe fn reference<'a, T>(argument: &str, pointer: *const T) -> Result<&'a T, Failure> {
    check(argument, pointer)?;
    // SAFETY: not null, aligned; the rest is the caller's word.
    Ok(unsafe { &*pointer })
}

/// The same elements, in memory of ours.
pub(crate) fn copy<T: Copy>(argument: &str, elements: &[T]) -> Result<Vec<T>, Failure> {
    let mut copy = Vec::new();
    copy.try_reserve_exact(elements.len()).map_err(|_| {
        let message = format!("{argument}: no memory for {} elements", elements.len());
        Failure::new(kvx_status::KVX_OUT_OF_MEMORY, message)
    })?;
    copy.extend_from_slice(elements);
    Ok(copy)
}

/// A struct of options, which may grow with the library.
///
/// # Safety
/// The struct is `repr(C)`, begins with its size as a `usize`, and any bytes are a value of it.
pub(crate) unsafe trait Options: Copy {}

/// The struct that `pointer` points to, of this library's version or another: what an older caller
/// does not know is zero, and what a newer one knows must be.
///
/// # Safety
/// `pointer` is null, or points to such a struct, as many bytes long as it says first.
pub(crate) unsafe fn sized<T: Options>(argument: &str, pointer: *const T) -> Result<T, Failure> {
    check(argument, pointer)?;
    let bytes = pointer.cast::<u8>();
    // SAFETY: not null, aligned, and the struct begins with its size.
    let size = unsafe { pointer.cast::<usize>().read() };
    if size < size_of::<usize>() {
        return Err(Failure::invalid(argument, "begins with its size, which is not set"));
    }
    let known = size.min(size_of::<T>());
    if size > size_of::<T>() {
        // SAFETY: the struct is so long, by the caller's word.
        let more = unsafe { slice(argument, bytes.wrapping_add(known), size - known) }?;
        if more.iter().any(|byte| *byte != 0) {
            let message = format!("{argument}: asks for what this version does not know");
            return Err(Failure::new(kvx_status::KVX_UNSUPPORTED, message));
        }
    }
    let mut options = MaybeUninit::<T>::zeroed();
    // SAFETY: both have so many bytes, and `options` is ours.
    unsafe { options.as_mut_ptr().cast::<u8>().copy_from_nonoverlapping(bytes, known) };
    // SAFETY: any bytes are a value of it, by the trait.
    Ok(unsafe { options.assume_init() })
}

/// The text that `pointer` points to; `None` if it is null.
///
/// # Safety
/// `pointer` is null, or points to bytes that end with a zero and that nobody changes during `'a`.
pub(crate) unsafe fn text<'a>(
    argument: &str,
    pointer: *const c_char,
) -> Result<Option<&'a str>, Failure> {
    if pointer.is_null() {
        return Ok(None);
    }
    // SAFETY: not null; the rest is the caller's word.
    let text = unsafe { CStr::from_ptr(pointer) };
    text.to_str().map(Some).map_err(|_| Failure::invalid(argument, "is not UTF-8"))
}

/// Where a result goes: looked at before anything is done that would have to be undone.
#[derive(Debug)]
pub(crate) struct Out<T>(*mut T);

impl<T> Out<T> {
    /// # Safety
    /// `pointer` is null, or a `T` can be written to it until [`Self::put`].
    pub(crate) unsafe fn new(argument: &str, pointer: *mut T) -> Result<Self, Failure> {
        check(argument, pointer.cast_const())?;
        Ok(Self(pointer))
    }

    pub(crate) fn put(self, value: T) {
        // SAFETY: `new` has looked at the pointer, and its caller has promised the rest.
        unsafe { self.0.write(value) };
    }
}

/// Copies bytes to where the caller has room for them.
///
/// `len` says how much room there is, and is told how long they are: a caller with too little is
/// answered with [`Failure`] and asks again.
///
/// # Safety
/// `buffer` is null, or so many bytes can be written to it as `len` points to.
pub(crate) unsafe fn copy_out(
    bytes: &[u8],
    buffer: *mut u8,
    len: *mut usize,
) -> Result<(), Failure> {
    check("len", len.cast_const())?;
    // SAFETY: not null, aligned; the rest is the caller's word.
    let room = unsafe { len.replace(bytes.len()) };
    if room < bytes.len() {
        let why = format!("{} bytes are needed", bytes.len());
        return Err(Failure::invalid("len", &why));
    }
    if !bytes.is_empty() {
        check("buffer", buffer.cast_const())?;
        // SAFETY: `buffer` has room for them, by the caller's word, and is no memory of ours.
        unsafe { buffer.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
    }
    Ok(())
}

fn check<T>(argument: &str, pointer: *const T) -> Result<(), Failure> {
    if pointer.is_null() {
        return Err(Failure::invalid(argument, "is null"));
    }
    if !pointer.is_aligned() {
        return Err(Failure::invalid(argument, "is not aligned"));
    }
    Ok(())
}
