#!/usr/bin/perl
# The demo's role files load, name the documented ports, and a fault in one of them ends `check` with 78, file and line.
use strict;
use warnings;
use File::Copy qw(copy);
use File::Path qw(make_path);
use HyperTest;
use Test::More;

# A copy of the roles beside the tests' certificates: settings/dev/certs need not exist.
my $dev = tmp() . '/dev';
make_path("$dev/roles", "$dev/store");
symlink certs(), "$dev/certs" or die "symlink: $!";
my @roles = map { m{([^/]+)$} } glob source() . '/settings/dev/roles/*';
is_deeply([ sort @roles ], [qw(hd-1 hd-2 public-proxy-1 public-proxy-hyper-1 sd-1)], 'the roles of the demo');
for my $role (@roles) {
	make_path("$dev/roles/$role");
	for my $file (glob source() . "/settings/dev/roles/$role/*.cfg") {
		copy($file, "$dev/roles/$role/") or die "copy: $!";
	}
}

sub check {
	my ($role, $path) = @_;
	my ($program, $variable) = $role =~ /^sd/ ? qw(sd SD_SETTINGS) : $role eq 'public-proxy-1' ? qw(proxy PROXY_SETTINGS) : qw(hyper HYPER_SETTINGS);
	return run_program([ program($program), 'check' ], env => { $variable => $path // "$dev/roles/$role" });
}

# protocol.md 2: what each role binds and calls, in the order of its file
my %addresses = (
	'sd-1' => 'bind_address localhost:3322', # fixed: documented
	'public-proxy-1' => 'internal_bind_address localhost:9999 internal_endpoint localhost:9999 ' # fixed: documented
	    . 'endpoint https://localhost:5544/jsonrpc bind_address localhost:6655', # fixed: documented
	'public-proxy-hyper-1' => 'endpoints https://localhost:3322/jsonrpc bind_address localhost:5556 ' # fixed: documented
	    . 'bind_address localhost:5544 endpoint https://localhost:6655/jsonrpc', # fixed: documented
	'hd-1' => 'endpoints https://localhost:3322/jsonrpc endpoint http://localhost:5555/jsonrpc ' # fixed: documented
	    . 'bind_address localhost:8888 bind_address localhost:5555', # fixed: documented
	'hd-2' => 'endpoints https://localhost:3322/jsonrpc endpoint http://localhost:3334/jsonrpc ' # fixed: documented
	    . 'bind_address localhost:8889 bind_address localhost:3334', # fixed: documented
);
my %order = (
	'public-proxy-hyper-1' => 'grpc_server grpc_client jsonrpc_server jsonrpc_client',
	'hd-1' => 'jsonrpc_client grpc_server grpc_client jsonrpc_server',
	'hd-2' => 'jsonrpc_client grpc_server grpc_client jsonrpc_server',
);
for my $role (@roles) {
	my ($code, $out, $err) = check($role);
	is("$code $err", '0 ', "$role: its settings are right");
	my $text = read_file("$dev/roles/$role/001_default.cfg");
	my @found = $text =~ /\b(\w*bind_address|internal_endpoint|endpoints?) = (?:\[ )?"([^"]+)"/g;
	is("@found", $addresses{$role}, "$role: addresses");
	my @types = grep { /_/ } $text =~ /\btype = "(\w+)"/g;
	is("@types", $order{$role}, "$role: order of channels") if $order{$role};
}

# What an operator sees.
my $file = "$dev/roles/hd-1/001_default.cfg";
my @lines = split /\n/, read_file($file), -1;
my ($line) = grep { $lines[ $_ - 1 ] =~ /verify_client/ } 1 .. @lines;
$lines[ $line - 1 ] =~ s/verify_client = false/verify_clients = "no"/;
write_file($file, join "\n", @lines);
my ($code, $out, $err) = check('hd-1');
is($code, 78, 'a wrong key: exit status 78');
like($err, qr{\Q$file:$line\E: channels\[3\]\.settings\.tls\.verify_clients: .*did you mean verify_client\?}, 'file, line, key, what to do');

# A later file of the folder mends an earlier one; a file that cannot be read is named with its place.
write_file("$dev/roles/hd-2/002_local.cfg", qq(directory = { settings = { store = "\${T_STORE}/x"; }; };\n));
($code, $out, $err) = check('hd-2');
is($code, 78, 'an undefined variable: exit status 78');
like($err, qr{002_local\.cfg:1: directory\.settings\.store: .*T_STORE}, 'and its name');
local $ENV{T_STORE} = '/nowhere';
($code, $out, $err) = check('hd-2');
is($code, 0, 'defined: no fault') or diag $err;
write_file("$dev/roles/hd-2/003_more.cfg", qq(signing = {\n\tkey_file = "none.key";\n};\n));
($code, $out, $err) = check('hd-2');
like($err, qr{003_more\.cfg:2: signing\.key_file: .*No such file.*hd-2/none\.key}, 'a missing key file, seen from the file that names it');
($code, $out, $err) = check('hd-1', '');
is($code, 78, 'no settings: exit status 78');
like($err, qr/HYPER_SETTINGS/, 'and the variable to set');
hyper_done();
