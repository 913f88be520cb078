//! Pins the client API: a field that is renamed, renumbered or retyped breaks every etcd client.

use std::collections::BTreeSet;

use prost::Message as _;
use prost_types::{
    DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorProto,
    FileDescriptorSet, ServiceDescriptorProto,
    field_descriptor_proto::{Label, Type},
};

use super::FILE_DESCRIPTOR_SET;

/// One line for each message, field, enum value and rpc of etcd 3.7.3's own proto files, which are
/// those of 3.6 with `KV.RangeStream`.
const ETCD: &str = include_str!("etcd_surface.txt");

#[test]
fn etcd_clients_find_every_field_where_etcd_has_it() {
    let set = FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).unwrap();
    let mut lines = Vec::new();
    let of_etcd = |file: &&FileDescriptorProto| {
        !["ordinal.", "grpc."].iter().any(|other| file.package().starts_with(other))
    };
    for file in set.file.iter().filter(of_etcd) {
        describe_file(file, &mut lines);
    }

    let ours: BTreeSet<&str> = lines.iter().map(String::as_str).collect();
    let etcds: BTreeSet<&str> = ETCD.lines().collect();
    let missing: Vec<_> = etcds.difference(&ours).collect();
    let foreign: Vec<_> = ours.difference(&etcds).collect();
    assert!(
        missing.is_empty() && foreign.is_empty(),
        "etcd has {missing:#?}\nwhere we have {foreign:#?}"
    );
}

fn describe_file(file: &FileDescriptorProto, lines: &mut Vec<String>) {
    for message in &file.message_type {
        describe_message(file.package(), message, lines);
    }
    for values in &file.enum_type {
        describe_enum(file.package(), values, lines);
    }
    for service in &file.service {
        describe_service(file.package(), service, lines);
    }
}

fn describe_message(scope: &str, message: &DescriptorProto, lines: &mut Vec<String>) {
    let full = format!("{scope}.{}", message.name());
    for field in &message.field {
        let oneof = field.oneof_index.map_or(String::new(), |index| {
            format!(" (oneof {})", message.oneof_decl[index as usize].name())
        });
        let repeated = if field.label() == Label::Repeated { "repeated " } else { "" };
        let (name, number, of) = (field.name(), field.number(), type_of(field));
        lines.push(format!("field {full}.{name} = {number}: {repeated}{of}{oneof}"));
    }
    for nested in &message.nested_type {
        describe_message(&full, nested, lines);
    }
    for values in &message.enum_type {
        describe_enum(&full, values, lines);
    }
    lines.push(format!("message {full}"));
}

fn describe_enum(scope: &str, values: &EnumDescriptorProto, lines: &mut Vec<String>) {
    for value in &values.value {
        let (name, number) = (value.name(), value.number());
        lines.push(format!("enum {scope}.{}.{name} = {number}", values.name()));
    }
}

fn describe_service(scope: &str, service: &ServiceDescriptorProto, lines: &mut Vec<String>) {
    let stream = |streaming| if streaming { "stream " } else { "" };
    for method in &service.method {
        lines.push(format!(
            "rpc {scope}.{}.{}({}{}) returns ({}{})",
            service.name(),
            method.name(),
            stream(method.client_streaming()),
            method.input_type().trim_start_matches('.'),
            stream(method.server_streaming()),
            method.output_type().trim_start_matches('.'),
        ));
    }
}

fn type_of(field: &FieldDescriptorProto) -> &str {
    match field.r#type() {
        Type::Message | Type::Enum => field.type_name().trim_start_matches('.'),
        Type::Bytes => "bytes",
        Type::String => "string",
        Type::Bool => "bool",
        Type::Int64 => "int64",
        Type::Uint64 => "uint64",
        Type::Uint32 => "uint32",
        other => panic!("{}: {other:?} is not used by etcd", field.name()),
    }
}
