#!/usr/bin/perl
# Guards: a reload of the service directory applies all of its settings or nothing, says what needs a restart, and the verb returns the outcome.
use strict;
use warnings;
use HyperSd;
use HyperTest;
use Test::More;

my $sd = sd_new();
my $file = "$sd->{dir}/settings/sd.cfg";
my $good = read_file($file) . qq(admin_socket = "$sd->{dir}/admin.sock";\n);
write_file($file, $good);
my $d = $sd->start_sd;
my $pid = $d->pid;
sub verb { return run_program([ program('sd'), @_ ? @_ : 'reload' ], env => { SD_SETTINGS => "$sd->{dir}/settings" }, timeout => 60) }

my ($exit, $out, $err) = verb();
is("$exit $err", '0 ', 'nothing new: exit status 0');
my $new = $good =~ s/jsonrpc_server = \{/log_level = "debug"; jsonrpc_server = { max_connections = 9;/r =~ s/sd\.sqlite/other.sqlite/r;
write_file($file, $new);
($exit, $out, $err) = verb('check', '--diff');
is("$exit $err", '0 ', 'check --diff: exit status 0');
like($out, qr/^would change: jsonrpc_server\.max_connections 1024 -> 9$/m, 'what would change');
like($out, qr/^needs a restart: store\.path /m, 'what needs a restart');
is($d->count_log(qr/ reloaded /), 1, 'it changes nothing');
($exit, $out, $err) = verb();
is("$exit $err", '0 ', 'new settings: exit status 0');
like($out, qr/^changed: log_level "info" -> "debug"$/m, 'what changed');
like($out, qr/^changed: jsonrpc_server\.max_connections 1024 -> 9$/m, 'and that');
like($out, qr/^needs a restart: store\.path .*other\.sqlite"$/m, 'what needs a restart');
my $crt = write_file("$sd->{dir}/bad.crt", "no certificate\n");
my %wrong = (
	'syntax' => [ $good =~ s/store = /store /r, qr/sd\.cfg:\d+: / ],
	'unknown key' => [ "nonsense = 1;\n$good", qr/sd\.cfg:1: nonsense: / ],
	'missing key file' => [ $good =~ s/key_file = "[^"]*"/key_file = "$sd->{dir}\/none.key"/r, qr/sd\.cfg:\d+: jsonrpc_server\.tls\.key_file: / ],
	'bad certificate' => [ $good =~ s/certificate_file = "[^"]*"/certificate_file = "$sd->{dir}\/bad.crt"/r, qr/bad\.crt/ ],
);
for my $kind (sort keys %wrong) {
	write_file($file, $wrong{$kind}[0]);
	my $failed = $d->count_log(qr/ error reload_failed /);
	$d->signal('HUP');
	ok(wait_until(sub { $d->count_log(qr/ error reload_failed /) > $failed }), "$kind: HUP fails");
	like(join("\n", grep { / reload_fault / } split /\n/, $d->log_text), $wrong{$kind}[1], "$kind: the log says where");
	is((verb())[0], 78, "$kind: sd reload gives 78");
}
write_file($file, $good);
is((verb())[0], 0, 'the good ones again');

# The authorities of records: with a record there, others that do not verify it are refused, and more of them are taken
is($sd->submit($sd->record)->{result}, 'ok', 'a record is taken');
my $c = certs();
my $cas = sub { my ($list) = @_; return $good =~ s/(directory = \{.*?ca_certificate_files = )\[[^]]*\]/$1\[ $list \]/sr };
write_file($file, $cas->(qq("$c/hd-1.crt")));
($exit, $out, $err) = verb();
is($exit, 78, 'authorities that do not verify what there is: 78');
like($err, qr/directory: record 1 of 1 would not be accepted any more/, 'and the record is named');
write_file($file, $cas->(qq("$c/root.crt", "$c/hd-1.crt")));
($exit, $out, $err) = verb();
is("$exit $err", '0 ', 'one more authority: exit status 0');
like($out, qr/^changed: directory\.ca_certificate_files /m, 'it is live');
write_file($file, $good);
is((verb())[0], 0, 'and away again');

is($d->pid, $pid, 'the same process');
($exit, $out, $err) = verb('stop');
is("$exit $out$err", "0 stopped\n", 'sd stop: exit status 0');
is($d->wait_exit(10), 0, 'it is gone, with 0');
is((verb())[0], 69, 'nobody serves the socket: 69');
hyper_done();
