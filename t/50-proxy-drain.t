#!/usr/bin/perl
# Guards: drain lets nothing new in and what is under way come to its end, up to a deadline; TERM does so before it stops; the verbs wait for it and say by their exit status how it went.
use strict;
use warnings;
use HyperTest;
use ProxyTest;
use Test::More;
use Time::HiRes qw(time);

my $socket = tmp() . '/admin.sock';
sub new_proxy { return proxy(workers => 2, outer => qq(admin_socket = "$socket";\nmetrics = { bind_address = "localhost:0"; };\n), @_) }
# The verb in a process of its own; its exit status comes by ->().
sub verb_later {
	my ($p, @words) = @_;
	my $pid = fork // die "fork: $!";
	if (!$pid) {
		open STDOUT, '>', '/dev/null';
		open STDERR, '>', '/dev/null';
		$ENV{PROXY_SETTINGS} = $p->{dir};
		exec program('proxy'), @words or POSIX::_exit(127);
	}
	return sub { waitpid $pid, 0; return $? >> 8 };
}
sub ready { my ($p) = @_; return scalar `curl -sS --noproxy '*' --max-time 20 http://127.0.0.1:@{[ $p->{d}->ready('metrics_port') ]}/readyz` }

# TERM: what is under way ends by itself
{
	my $p = new_proxy(drain_timeout => '60.0');
	my ($a, $b, $session) = $p->pair;
	my ($token, $waiting) = $p->broker;
	$p->{d}->signal('TERM');
	isnt($p->{d}->wait_log(qr/ info draining pairs=1 tokens=1/), undef, 'TERM drains');
	my $r = $p->ask->answer;
	is($r->{error}{code}, -32004, 'new requests are refused');
	is($r->{error}{data}{reason}, 'draining', 'reason draining');
	like(ready($p), qr/draining/, 'it is not ready any more');
	my ($c, $d) = ($p->come($token), $p->come($token));
	joined($c, $d, 'a token of before is good');
	joined($a, $b, 'a pair of before lives');
	ok($p->{d}->is_running, 'it waits');
	close $_ for $a, $b, $c, $d;
	is($p->{d}->wait_exit(10), 0, 'it ends with the last pair');
	is($p->wait_ended($session)->{reason}, 'closed', 'which ended by itself');
}
# A second one, and a deadline
{
	my $p = new_proxy(drain_timeout => '60.0');
	my ($a, $b, $session) = $p->pair;
	$p->{d}->signal('TERM');
	isnt($p->{d}->wait_log(qr/ info draining /), undef, 'TERM drains');
	my $began = time;
	$p->{d}->signal('TERM');
	is($p->{d}->wait_exit(10), 0, 'a second TERM stops');
	cmp_ok(time - $began, '<', 5 * slow_factor(), 'at once');

	$p = new_proxy(drain_timeout => '0.5');
	($a, $b, $session) = $p->pair;
	$p->{d}->signal('TERM');
	is($p->{d}->wait_exit(10), 0, 'the deadline ends it');
	is($p->wait_ended($session)->{reason}, 'stopped', 'with the pair');
}
# Verbs
{
	my $p = new_proxy(drain_timeout => '60.0');
	my ($exit, $out, $err) = $p->verb('drain');
	is("$exit $err", '0 ', 'drain with nothing under way');
	is($p->ask->answer->{error}{code}, -32004, 'it stays drained');
	is(($p->verb('undrain'))[0], 0, 'undrain');
	is(ready($p), "serving\n", 'it serves again');
	my @pairs = map { [ $p->pair ] } 1 .. 3;
	is(($p->verb('drain', '--deadline', '0.3'))[0], 1, 'drain with a deadline: 1');
	joined(@{ $pairs[0] }[ 0, 1 ], 'no pair is cut');
	is(($p->verb('drain', '--until', '3'))[0], 0, 'drain --until as many as there are');
	my $until = verb_later($p, 'drain', '--until', 1);
	my $all = verb_later($p, 'drain');
	isnt($p->{d}->wait_log(qr/ drain_asked verb=drain until=1 /), undef, 'two wait');
	ok(wait_until(sub { $p->{d}->count_log(qr/ drain_asked verb=drain until=0 /) == 3 }), 'for different things');
	close $_ for map { @{ $pairs[$_] }[ 0, 1 ] } 1, 2;
	is($until->(), 0, 'drain --until 1 returns with one pair left');
	joined(@{ $pairs[0] }[ 0, 1 ], 'which lives');
	my $stop = verb_later($p, 'stop');
	isnt($p->{d}->wait_log(qr/ drain_asked verb=stop /), undef, 'stop waits');
	joined(@{ $pairs[0] }[ 0, 1 ], 'for the pair');
	close $_ for @{ $pairs[0] }[ 0, 1 ];
	is($stop->(), 0, 'stop: 0 when all ended by themselves');
	is($all->(), 0, 'and so has drain');
	is($p->{d}->wait_exit(5), 0, 'the proxy is gone');
	is(($p->verb('stop'))[0], 69, 'then nobody serves the socket: 69');

	$p = new_proxy(drain_timeout => '60.0');
	my ($a, $b) = $p->pair;
	is(($p->verb('stop', '--deadline', 'soon'))[0], 64, 'a deadline that is no number: 64');
	my $late = verb_later($p, 'stop', '--deadline', '0.3');
	is($p->{d}->wait_exit(20), 0, 'stop --deadline stops');
	is($late->(), 1, 'and says 1 where pairs were reset');
}
hyper_done();
