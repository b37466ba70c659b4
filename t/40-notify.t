#!/usr/bin/perl
# Guards: the service manager hears of start, reload, upgrade, drain and end as they happen, and its watchdog is fed by the main loop alone.
use strict;
use warnings;
use File::Copy qw(copy);
use HyperMesh;
use HyperSd;
use HyperTest;
use Manager;
use ProxyTest;
use Test::More;

# Each of the three: ready, fed, told of a reload, told of the end
sub life {
	my ($m, $d, $what, $status) = @_;
	my $pid = $d->pid;
	my $ready = $m->wait(qr/^READY=1$/m) // '';
	like($ready, qr/^MAINPID=$pid$/m, "$what: READY with its pid");
	like($ready, qr/^STATUS=$status/m, "$what: and what it does");
	isnt($m->wait(qr/^WATCHDOG=1$/), undef, "$what: feeds the watchdog") for 1, 2;
	# a loop that stands still feeds nothing
	stop_process($pid);
	$m->drain;
	is($m->next_one(1), undef, "$what: nothing comes from one that stands still");
	$d->signal('CONT');
	isnt($m->wait(qr/^WATCHDOG=1$/), undef, "$what: and goes on when it does");
	$d->signal('HUP');
	like($m->wait(qr/^RELOADING=1$/m) // '', qr/^MONOTONIC_USEC=\d+$/m, "$what: RELOADING, and when");
	isnt($m->wait(qr/^READY=1$/m), undef, "$what: READY again");
	return;
}

sub end {
	my ($m, $d, $what) = @_;
	$d->signal('TERM');
	isnt($m->wait(qr/^STOPPING=1$/m), undef, "$what: STOPPING");
	is($d->wait_exit, 0, "$what: ends");
	return;
}

{
	my $m = manager(watchdog_ms => 400);
	my $d = sd_new()->start_sd;
	life($m, $d, 'sd', qr/serving: 0 records$/);
	end($m, $d, 'sd');
}
{
	my $m = manager(watchdog_ms => 400, abstract => 1);
	my $mesh = mesh(directory => 'json', start => 0);
	my $d = $mesh->start_one('hd-1');
	life($m, $d, 'hyper', qr/serving: 0 calls in flight/);
	end($m, $d, 'hyper');
	like($m->{heard}[-1], qr/^EXTEND_TIMEOUT_USEC=\d{7,}$/m, 'hyper: the manager is asked to wait for the drain');
}
{
	my $m = manager(watchdog_ms => 400);
	my $program = tmp() . '/upgraded-proxy';
	copy(program('proxy'), $program) or die "copy: $!";
	chmod 0755, $program;
	my $p = proxy(workers => 2, drain_timeout => '60.0', program => $program);
	my $pid = $p->{d}->pid;
	life($m, $p->{d}, 'proxy', qr/serving: 0 pairs, 0 tokens/);
	my ($a, $b) = $p->pair;
	isnt($m->wait(qr/^STATUS=serving: 1 pairs/m, 20), undef, 'proxy: the status follows the pairs');

	# a reload that fails is over too
	write_file("$p->{dir}/001.cfg", "nonsense = 1;\n$p->{settings}");
	$p->{d}->signal('HUP');
	isnt($m->wait(qr/^RELOADING=1$/m), undef, 'proxy: a reload begins');
	like($m->wait(qr/^READY=1$/m) // '', qr/^STATUS=.*the last reload failed/m, 'proxy: it failed, and it goes on');
	write_file("$p->{dir}/001.cfg", $p->{settings});

	# an upgrade: another program, the same process
	$p->{d}->signal('USR2');
	isnt($m->wait(qr/^RELOADING=1$/m), undef, 'proxy: an upgrade is told as a reload');
	like($m->wait(qr/^READY=1$/m, 30) // '', qr/^MAINPID=$pid$/m, 'proxy: the new program is ready, the pid stays');
	isnt($m->wait(qr/^WATCHDOG=1$/), undef, 'proxy: the new program feeds the watchdog') for 1, 2;
	joined($a, $b, 'proxy: the pair lives');

	# one that cannot be executed, and one that gives up afterwards: the old program is back, and no end was told
	for my $kind ([ 'exit 1', 'is not executed' ], [ 'if [ "$1" = check ]; then exec ' . program('proxy') . ' "$@"; fi; cp ' . program('proxy') . " $program.w"
		. '; exec env HYPER_TEST_CRASH=w LD_PRELOAD=' . build() . "/t/fail/crash.so $program.w \"\$@\"", 'gives up' ]) {
		unlink $program;
		write_file($program, "#!/bin/sh\n$kind->[0]\n");
		chmod 0755, $program;
		my $before = @{ $m->{heard} };
		$p->{d}->signal('USR2');
		isnt($m->wait(qr/^RELOADING=1$/m), undef, "proxy: an upgrade to one that $kind->[1]");
		like($m->wait(qr/^READY=1$/m, 60) // '', qr/^MAINPID=$pid$/m, 'proxy: READY again');
		is(scalar(grep { /STOPPING/ } @{ $m->{heard} }[ $before .. $#{ $m->{heard} } ]), 0, 'proxy: no end was told');
	}
	is($p->{d}->count_log(qr/ error upgrade_failed /), 2, 'proxy: both failed');
	joined($a, $b, 'proxy: the pair lives');

	# the drain is longer than the manager would wait
	$p->{d}->signal('TERM');
	my $stopping = $m->wait(qr/^STOPPING=1$/m) // '';
	like($stopping, qr/^STATUS=draining: 1 pairs/m, 'proxy: STOPPING, and for what it waits');
	cmp_ok($stopping =~ /^EXTEND_TIMEOUT_USEC=(\d+)$/m ? $1 : 0, '>=', 60e6, 'proxy: the manager is asked to wait for the drain');
	isnt($m->wait(qr/^WATCHDOG=1$/), undef, 'proxy: it is fed meanwhile');
	close $_ for $a, $b;
	is($p->{d}->wait_exit, 0, 'proxy: ends');
	is((grep { /^READY=1$/m } $m->drain)[0], undef, 'proxy: nothing took it back');
}
# One that only waited for the start, as start-stop-daemon does, is no reason for a line in the log
{
	my $m = manager();
	my $p = proxy(workers => 1);
	isnt($m->wait(qr/^READY=1$/m), undef, 'ready');
	close $m->{sock};
	unlink $ENV{NOTIFY_SOCKET};
	my ($a, $b) = $p->pair;
	$p->{d}->signal('HUP');
	isnt($p->{d}->wait_log(qr/ reloaded /), undef, 'it goes on without its manager');
	is($p->{d}->count_log(qr/ warn notify /), 0, 'and says nothing of it');
}
delete @ENV{qw(NOTIFY_SOCKET WATCHDOG_USEC)};
hyper_done();
