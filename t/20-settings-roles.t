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
my $good = read_file($file);
write_file($file, join "\n", @lines);
my ($code, $out, $err) = check('hd-1');
is($code, 78, 'a wrong key: exit status 78');
write_file($file, $good);
like($err, qr{\Q$file:$line\E: channels\[3\]\.settings\.tls\.verify_clients: .*did you mean verify_client\?}, 'file, line, key, what to do');

# All at once, at `check` and at the start of each program: an unknown key, a wrong type, a missing file, each with its line.
my %faulty = (
	'sd-1' => [ qq(log_level = 7;\nstorre = 1;\njsonrpc_server = {\n\ttls = {\n\t\tkey_file = "gone.key";\n\t};\n};\n),
		[ 1, 'log_level', qr/expected one of error, warn, info, debug, found 7/ ], [ 2, 'storre', qr/did you mean store\?/ ],
		[ 5, 'jsonrpc_server.tls.key_file', qr/No such file/ ] ],
	'public-proxy-1' => [ qq(public = {\n\tworkers = "two";\n\taccept_timout = 3.0;\n\tjsonrpc_client = {\n\t\ttls = {\n\t\t\tca_certificate_files = [ "gone.crt" ];\n\t\t};\n\t};\n};\n),
		[ 2, 'public.workers', qr/expected an integer in 1\.\.256 .*found the string "two"/ ],
		[ 3, 'public.accept_timout', qr/did you mean accept_timeout\?/ ],
		[ 6, 'public.jsonrpc_client.tls.ca_certificate_files[0]', qr/No such file/ ] ],
	'hd-1' => [ qq(call_timeout = true;\ndirectory = {\n\tsettings = {\n\t\tca_certificate_files = [ "gone.crt" ];\n\t};\n};\nchanels = ();\n),
		[ 1, 'call_timeout', qr/expected .*found true/ ], [ 4, 'directory.settings.ca_certificate_files[0]', qr/No such file/ ],
		[ 7, 'chanels', qr/did you mean channels\?/ ] ],
);
for my $role (sort keys %faulty) {
	my ($text, @faults) = @{ $faulty{$role} };
	my $file = write_file("$dev/roles/$role/009_faulty.cfg", $text);
	my ($program, $variable, @run) = $role =~ /^sd/ ? qw(sd SD_SETTINGS run) : $role =~ /^public/ ? qw(proxy PROXY_SETTINGS run public) : qw(hyper HYPER_SETTINGS server run);
	for my $verb ([@run], ['check']) {
		my ($code, $out, $err) = run_program([ program($program), @$verb ], env => { $variable => "$dev/roles/$role" });
		is($code, 78, "$program @$verb: three faults: exit status 78");
		for my $fault (@faults) {
			my ($line, $key, $what) = @$fault;
			like($err, qr/^$program: \Q$file:$line: $key: \E.*$what.*$/m, "$program @$verb: $key with file, line and what was expected");
		}
		like($err, qr/^$program: 3 faults in the settings, nothing was started$/m, "$program @$verb: and no other");
	}
	unlink $file or die "unlink: $!";
}

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
# A list of folders, the later one wins; an empty name in it is nothing.
write_file(tmp() . '/more/a.cfg', qq(log_level = "loud";\n));
write_file(tmp() . '/last/a.cfg', qq(log_level = "debug";\n));
my $list = join ':', "$dev/roles/hd-1", tmp() . '/more';
is((check('hd-1', $list))[0], 78, 'two folders: the second one counts');
is((check('hd-1', "$list:" . tmp() . '/last'))[0], 0, 'and the third one more');
($code, $out, $err) = check('hd-1', '');
is($code, 78, 'no settings: exit status 78');
like($err, qr/HYPER_SETTINGS/, 'and the variable to set');
hyper_done();
