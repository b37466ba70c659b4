#!/usr/bin/perl
# Guards: a worker that is killed right before or right behind a recv, send or write of a small message costs no byte: the n-th of them, for each n.
use strict;
use warnings;
use FailNth;
use HyperTest;
use ProxyTest;
use Test::More;
use Time::HiRes qw(time);

my ($master, $page) = (fail_page('proxy'), fail_page('proxy', 'worker'));
my $p = with_pages($master, sub { proxy(workers => 2, token_timeout => 60, log_level => 'info') });
my @behind = ([ before => FailNth::DIE_BEFORE ], [ behind => FailNth::DIE_BEHIND ]);
my $most = $ENV{HYPER_LONG} ? 60 : 10;
open my $random, '<:raw', '/dev/urandom' or die $!;
sysread $random, my $noise, 1 << 16;
srand($ENV{T_SEED} // time);

sub message { my ($len) = @_; return substr $noise, int rand(length($noise) - $len), $len }

# Messages there and back, small ones for the most part, until a worker has died of it, and some more. 'ok' or what is wrong.
sub talk {
	my ($a, $b, $died) = @_;
	my ($until, $more) = (time + 30 * slow_factor(), 3);
	while ($more > 0) {
		return 'nobody dies' if time > $until;
		$more-- if $died->();
		for my $d ([ $a, $b ], [ $b, $a ]) {
			my $text = message(1 + int rand(rand() < 0.2 ? 9000 : 600));
			send_all($d->[0], $text);
			my $got = read_exactly($d->[1], length $text, 20) // '';
			return sprintf 'wrong bytes: %d of %d', length $got, length $text if $got ne $text;
		}
	}
	return 'ok';
}

my ($a, $b, $session) = $p->pair;
for my $kind ('recv', 'send') {
	for my $when (@behind) {
		my @bad;
		for my $n (1 .. $most) {
			wait_until { grep { fds_of($_) > 0 } grep { defined } $p->worker_pids } or die 'no worker';
			$page->arm($kind, $n, 1, $when->[1]);
			my $said = talk($a, $b, sub { $page->failed });
			$page->disarm;
			push @bad, "n=$n: $said" if $said ne 'ok';
			last if @bad;
		}
		is("@bad", '', "killed $when->[0] the n-th $kind, for n up to $most: each byte arrives") or BAIL_OUT($p->{d}->log_tail);
	}
}

# One message of which a worker takes notice before the next one comes: two at once may be no small one any more. False: it
# was not read by recv, since the pair stalls or splices for now.
sub send_one {
	my ($s, $text) = @_;
	my $before = $page->seen('recv');
	send_all($s, $text);
	my $until = time + 0.3 * slow_factor();
	while (time < $until) {
		return 1 if $page->failed || $page->seen('recv') > $before;
		select undef, undef, undef, 0.0001; # lasts: the worker's time to read it
	}
	return 0;
}

# A reader that does not read: what a send did not take goes into a pipe, and that is where its worker dies.
for my $when (@behind) {
	my ($sent, $bad, $until) = ('', '', time + 60 * slow_factor());
	$page->arm('pipe', 1, 1, $when->[1]);
	while (!$page->failed && time < $until) {
		my $text = message(1 + int rand 3500);
		$sent .= $text;
		next if send_one($a, $text);
		last if $page->failed;
		# stalled without one
		$bad = 'wrong bytes' if read_exactly($b, length $sent, 30) ne $sent;
		$sent = '';
	}
	ok($page->failed, "a worker died $when->[0] the write of a rest");
	$page->disarm;
	ok(read_exactly($b, length $sent, 30) eq $sent && !$bad, "killed $when->[0] it: each of " . length($sent) . ' bytes');
	is(talk($a, $b, sub { 1 }), 'ok', "killed $when->[0] it: and on it goes");
}

shutdown $a, 1;
is((read_to_end($b))[1], 'eof', 'its end is one');
close $b;
is($p->wait_ended($session)->{reason}, 'closed', 'also in the log');
cmp_ok($p->{d}->count_log(qr/proxy\[\d+\] info copy .*rest=[1-9]/), '>', 3, 'bytes were taken from the copy place');
is($p->{d}->count_log(qr/proxy\[\d+\] error copy /), 0, 'and it was always known which');
is($p->{d}->stop, 0, 'it stops cleanly');
hyper_done();
