#!/usr/bin/perl
# Guards: orders that meet: a reload, a drain and a second upgrade while one is under way, and an upgrade while it drains: each has the outcome that is said, and no pair, token or pairing is lost.
use strict;
use warnings;
use ChaosTest;
use File::Copy qw(copy move);
use HyperTest;
use ProxyTest;
use Test::More;

my ($program, $gate, $socket) = map { tmp() . "/$_" } qw(upgraded-proxy gate admin.sock);
my $real = program('proxy');

# A program whose check waits for the gate to open.
sub install_slow {
	unlink $program, $gate;
	write_file($program, qq(#!/bin/sh\nif [ "\$1" = check ]; then touch $gate.asked; n=0; while [ ! -e $gate ] && [ \$n -lt 300 ]; do sleep 0.1; n=\$((n+1)); done; fi\nexec $real "\$@"\n));
	chmod 0755, $program;
	return;
}
sub begin_upgrade {
	unlink "$gate.asked";
	install_slow();
	$p::p->{d}->signal('USR2');
	wait_until { -e "$gate.asked" } 20 or die "no check:\n" . $p::p->{d}->log_tail;
	return;
}

copy($real, $program) or die "copy: $!";
chmod 0755, $program;
my $p = $p::p = storm_proxy(workers => 2, program => $program, hyper => undef, outer => qq(admin_socket = "$socket";\n));
my $pid = $p->{d}->pid;
my $good = read_file("$p->{dir}/001.cfg");
sub verb { return $p->verb(@_) }
sub count { my ($re) = @_; return $p->{d}->count_log($re) }
sub status { my (undef, $out) = verb('status', '--json'); return eval { json_value($out) } // {} }
# Each time the program is another script, which the master would not look for where the real one lies.
sub home { unlink $program; copy($real, $program) or die "copy: $!"; chmod 0755, $program; return }

my ($a, $b, $session) = $p->pair;
my ($token, $parked) = $p->broker;
my $first = $p->come($token);
$p->wait_parked($parked);

# A second upgrade, a reload by verb and one by signal
begin_upgrade();
my ($code, $out, $err) = verb('upgrade');
is($code, 1, 'a second upgrade during the first: exit status 1');
like($err, qr/an upgrade is under way already/, 'and says why');
write_file("$p->{dir}/001.cfg", $good =~ s/public = \{/public = { max_pairs_per_operator = 3;/r);
($code, $out, $err) = verb('reload');
isnt($code, 0, 'proxy reload during an upgrade: not now');
like($err, qr/an upgrade is under way/, 'and says why');
$p->{d}->signal('HUP');
joined($a, $b, 'the pair meanwhile');
my ($c, $d) = $p->pair;
joined($c, $d, 'a new one meanwhile');
write_file($gate, '');
ok((wait_until { (status()->{upgrades} // -1) == 1 } 30), 'the first upgrade is done') or diag($p->{d}->log_tail);
is($p->{d}->pid, $pid, 'in the same process');
joined($a, $b, 'the pair after it');
my $second = $p->come($token);
joined($second, $first, 'who was parked');
my ($t) = $p->broker;
my ($x, $y) = ($p->come($t), $p->come($t));
isnt($p->{d}->wait_log(qr/refused .*reason=quota/), undef, 'the settings that HUP was for hold');
close $_ for $x, $y;
is($p->{d}->stop, 0, 'it stops');

# A drain ends an upgrade that is under way; none begins while it drains
home();
$p = $p::p = storm_proxy(workers => 2, program => $program, hyper => undef, outer => qq(admin_socket = "$socket";\n));
($a, $b, $session) = $p->pair;
begin_upgrade();
($code, $out, $err) = verb('drain', '--until', 1, '--deadline', 20);
is($code, 0, 'a drain while an upgrade is under way') or diag("$out$err");
ok((wait_until { count(qr/ error upgrade_failed /) == 1 } 20), 'ends the upgrade') or diag($p->{d}->log_tail);
write_file($gate, '');
is(status()->{state}, 'draining', 'it drains');
joined($a, $b, 'the pair lives');
home();
($code, $out, $err) = verb('upgrade');
is($code, 1, 'an upgrade while it drains: exit status 1');
like($err, qr/not serve yet, or is about to stop/, 'and says why');
is((verb('undrain'))[0], 0, 'undrain');
($c, $d) = $p->pair;
joined($c, $d, 'new ones come in again');
($code, $out, $err) = verb('upgrade');
is("$code $out$err", "0 upgraded\n", 'and an upgrade goes through');
joined($a, $b, 'the pair lives on');
joined($c, $d, 'the other one, too');
is(count(qr/ ended .*session=$session/), 0, 'its end was never said');
close $_ for $a, $b, $c, $d;
is($p->{d}->stop, 0, 'it stops');
hyper_done();
