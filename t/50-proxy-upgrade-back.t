#!/usr/bin/perl
# Guards: a new program that is broken costs nothing: one that cannot read what is left to it is never executed, and one that passes its check and then does not start, or crashes, executes the old program again, with every pair, token and parked socket.
use strict;
use warnings;
use ChaosTest;
use File::Copy qw(copy move);
use HyperTest;
use IO::Socket::INET;
use ProxyTest;
use Test::More;

my $program = tmp() . '/upgraded-proxy';
my $socket = tmp() . '/admin.sock';
my $real = program('proxy');

sub install { my ($from) = @_; unlink $program; copy($from, "$program.new") or die "copy: $!"; chmod 0755, "$program.new"; move("$program.new", $program); return }
sub install_text { my ($text) = @_; unlink $program; write_file($program, $text); chmod 0755, $program; return }

install($real);
my $p = storm_proxy(workers => 2, program => $program, hyper => undef, outer => qq(metrics = { bind_address = "localhost:0"; };\nadmin_socket = "$socket";\n));
my $pid = $p->{d}->pid;
my $good = read_file("$p->{dir}/001.cfg");

sub verb { return $p->verb(@_) }
sub upgrades { my ($code, $out) = verb('status', '--json'); return $code == 0 ? json_value($out)->{upgrades} : "none ($code)" }

# One pair, one parked, one issued; returns what looks whether they are as they were.
sub things {
	my ($a, $b) = $p->pair;
	my ($token, $session) = $p->broker;
	my $first = $p->come($token);
	$p->wait_parked($session);
	my ($issued) = $p->broker;
	joined($a, $b, 'a pair: before');
	return sub {
		my ($what) = @_;
		is($p->{d}->pid, $pid, "$what: the same process");
		joined($a, $b, "$what: the pair");
		my $second = $p->come($token);
		joined($second, $first, "$what: who was parked");
		my ($x, $y) = ($p->come($issued), $p->come($issued));
		joined($y, $x, "$what: a token of before");
		my ($c, $d) = $p->pair;
		joined($c, $d, "$what: a new pair");
		close $_ for $a, $b, $first, $second, $x, $y, $c, $d;
	};
}

# What is not executed at all
my %never = (
	'exits with 1' => [ "exit 1\n", qr/check` ended with status 1\b/ ],
	'crashes in its check' => [ "kill -SEGV \$\$\n", qr/check` ended with signal 11\b/ ],
	'is content and knows no state' => [ "exit 0\n", qr/did not say that it can read our state/ ],
	'cannot read the state' => [ "exec env HYPER_PROXY_TRIAL_FD=0 $real \"\$@\" </dev/null\n", qr/check` ended with status 69\b/ ],
	'reads another state' => [ "exec env HYPER_PROXY_STATE_VERSION=9999 $real \"\$@\"\n", qr/check` ended with status 69\b/ ],
);
for my $kind (sort keys %never) {
	my ($text, $re) = @{ $never{$kind} };
	my $look = things();
	my @workers = sort(living_workers($p));
	install_text("#!/bin/sh\n$text");
	my ($code, $out, $err) = verb('upgrade');
	is("$code $out", '1 ', "$kind: proxy upgrade fails");
	like($err, qr/the old program goes on: .*$re/s, "$kind: and says why");
	is(join(' ', sort(living_workers($p))), "@workers", "$kind: the workers are the same");
	$look->($kind);
}

# Nor what could not start with its settings
{
	my $look = things();
	my $busy = IO::Socket::INET->new(Listen => 1, LocalAddr => '127.0.0.1') or die "listen: $!";
	my $port = $busy->sockport;
	install($real);
	write_file("$p->{dir}/001.cfg", $good =~ s/metrics = \{ bind_address = "localhost:0"/metrics = { bind_address = "127.0.0.1:$port"/r);
	my ($code, $out, $err) = verb('upgrade');
	is("$code $out", '1 ', 'an address that is taken: proxy upgrade fails');
	like($err, qr/the old program goes on: .*check` ended with status 69\b/, 'an address that is taken: and says why');
	is($p->{d}->count_log(qr/could not go on .*cannot listen on 127\.0\.0\.1:$port/), 1, 'an address that is taken: the log names it');
	write_file("$p->{dir}/001.cfg", $good);
	$look->('an address that is taken');
	close $busy;
}

# What is executed, and gives up. The script is content with itself first.
my $crash = build() . '/t/fail/crash.so';
my $wait = 'if [ "$1" = check ]; then exec ' . $real . ' "$@"; fi';
my %back = (
	'it cannot start' => [ "$wait\nexec env HYPER_TEST_CRASH=0 LD_PRELOAD=$crash $real \"\$@\"\n", qr/token table: Too many open files/ ],
	'it finds no state' => [ "$wait\nexec env HYPER_PROXY_STATE_FD=0 $real \"\$@\"\n", qr/HYPER_PROXY_STATE_FD names no state/ ],
	'its workers do not start' => [ "$wait\ncp $real $program.w; exec env HYPER_TEST_CRASH=w LD_PRELOAD=$crash $program.w \"\$@\"\n", qr/its workers end before they serve/ ],
	'SIGSEGV' => [ "$wait\nexec env HYPER_TEST_CRASH=11 LD_PRELOAD=$crash $real \"\$@\"\n", qr/ended by signal 11/ ],
	'SIGABRT' => [ "$wait\nexec env HYPER_TEST_CRASH=6 LD_PRELOAD=$crash $real \"\$@\"\n", qr/ended by signal 06/ ],
);
for my $kind (sort keys %back) {
	my ($text, $re) = @{ $back{$kind} };
	my $look = things();
	my $before = upgrades();
	my $n = $p->{d}->count_log(qr/ error upgrade_failed /);
	install_text("#!/bin/sh\n$text");
	my ($code, $out, $err) = verb('upgrade');
	is("$code $out", '1 ', "$kind: proxy upgrade fails") or diag($err, $p->{d}->log_tail);
	like($err, qr/the old program is back: .*$re/s, "$kind: and says why");
	is($p->{d}->count_log(qr/ error upgrade_failed /), $n + 1, "$kind: so does the log, once");
	is($p->{d}->count_log(qr/ came_back .* lost=[1-9]/), 0, "$kind: nothing was lost");
	is(upgrades(), $before, "$kind: no upgrade is counted");
	$look->($kind);
	# It is its old self: whole, and with the file's own path, so that a good one can follow
	install($real);
	($code, $out, $err) = verb('upgrade');
	is("$code $out$err", "0 upgraded\n", "$kind: a good program afterwards");
	is(upgrades(), $before + 1, "$kind: which is counted");
}

# The old program's file may be gone meanwhile; nobody goes back twice, and no descriptor is left over
{
	$p->settled;
	note_state($p);
	my $look = things();
	install_text("#!/bin/sh\n$back{'it cannot start'}[0]");
	my ($code) = verb('upgrade');
	is($code, 1, 'the old program was deleted: it is back all the same');
	$look->('deleted');
	state_is_back($p, 'coming back', kb => 2048);
	my @zombies = grep { read_file("/proc/$_/stat") =~ /\) Z / } children_of($pid);
	is("@zombies", '', 'no dead child is left over');
}
is($p->{d}->stop, 0, 'it stops cleanly');
hyper_done();
